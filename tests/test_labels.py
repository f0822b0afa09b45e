"""Labels and masks: the truth as it stands, or one line that names the fault."""

import json
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import encode, label, refusal, tree

from anomaly.dataset import Dataset, load_dataset
from anomaly.errors import InputError, one_line
from anomaly.labels import LABEL_FILE, Labels, check_masks, parse_labels, read_labels

GOOD, BAD = {"label": "good"}, {"label": "bad"}
WELL = {"c/test/000.png": GOOD, "c/test/001.png": BAD | {"defect": "裂缝"}}


def test_labels_follow_the_test_images(tmp_path):
    labels = label(tree(tmp_path), dict(reversed(WELL.items())))
    assert labels.is_bad.tolist() == [0, 1] and labels.is_bad.dtype == np.int8
    assert labels.defect == ["", "裂缝"]
    assert labels.masks == [None, None] and labels.problems == []


ACCEPTED = {  # file contents, is_bad, problems
    "byte order mark": (b"\xef\xbb\xbf" + json.dumps(WELL).encode(), [0, 1], []),
    "backslashes": ({k.replace("/", "\\"): v for k, v in WELL.items()}, [0, 1], []),
    "leading ./": ({"./" + k: v for k, v in WELL.items()}, [0, 1], []),
    "other categories": (WELL | {"d/test/7.png": BAD}, [0, 1], []),
    "test all good": ({k: GOOD for k in WELL}, [0, 0], []),
    "test all bad": ({k: BAD for k in WELL}, [1, 1], []),
    "image without a label": (
        {"c/test/001.png": BAD},
        [-1, 1],
        ["image without a label: c/test/000.png"],
    ),
    "label without an image": (
        WELL | {"c/test/x.png": BAD, "001.png": BAD},
        [0, 1],
        ["label without an image: c/test/x.png, 001.png"],
    ),
    "nothing": (
        {},
        [-1, -1],
        ["image without a label: c/test/000.png, c/test/001.png"],
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_labels_accepted(tmp_path, name):
    content, is_bad, problems = ACCEPTED[name]
    labels = label(tree(tmp_path), content)
    assert labels.is_bad.tolist() == is_bad
    assert labels.problems == problems


def test_labels_missing_leaves_all_unlabelled(tmp_path):
    labels = read_labels(load_dataset(tree(tmp_path), "c"))
    assert labels.is_bad.tolist() == [-1, -1]
    assert "not found" in labels.problems[0]


def test_labels_problems_are_one_short_line(tmp_path):
    extra = {f"c/test/\n{i}": BAD for i in range(500)}
    (problem,) = label(tree(tmp_path), WELL | extra).problems
    assert problem.endswith("… (500 in all)") and "\n" not in problem


def entry(value, key="c/test/000.png"):
    return {key: value}


REFUSED = {
    "empty": (b"", "not JSON in UTF-8"),
    "malformed": (b'{"c/test/000.png": {"label": "good"}', "line 1 column"),
    "not UTF-8": ('{"c/test/拉链.png": {}}'.encode("gbk"), "not JSON in UTF-8"),
    "UTF-16": (json.dumps(WELL).encode("utf-16"), "not JSON in UTF-8"),
    "list": ([WELL], "one object"),
    "null": (None, "one object"),
    "deep": (b"[" * 200_000, "recursion"),
    "deep object": (b'{"a":' * 200_000, "recursion"),
    "long number": (b'{"a": ' + b"9" * 9999 + b"}", "digits"),
    "entry is text": (entry("good"), "needs"),
    "entry is null": (entry(None), "needs"),
    "entry is a list": (entry(["good"]), "needs"),
    "label missing": (entry({"original_category": "c"}), "c/test/000.png"),
    "label unknown": (entry({"label": "defective"}), "c/test/000.png"),
    "label upper case": (entry({"label": "Good"}), '"good" or "bad"'),
    "label is a number": (entry({"label": 1}), "needs"),
    "label is a list": (entry({"label": ["good"]}), "needs"),
    "label of another category": (entry({"label": ""}, "d/test/1.png"), "d/test"),
    "defect is a number": (entry(BAD | {"defect": 3}), "defect"),
    "defect of two lines": (entry(BAD | {"defect": "a\nb"}), "defect"),
    "defect of half a character": (entry(BAD | {"defect": "\ud800"}), "defect"),
    "duplicate key": (b'{"a/b/c": {}, "a/b/c": {}}', "'a/b/c' is there twice"),
    "duplicate label": (b'{"a": {"label": "bad", "label": "good"}}', "there twice"),
    "duplicate by backslash": ({"c/test/x": BAD, "c\\test/x": BAD}, "there twice"),
    "absolute": (entry(BAD, "/etc/passwd"), "inside dataset_path"),
    "drive": (entry(BAD, "C:\\c\\test\\1.png"), "inside dataset_path"),
    "share": (entry(BAD, "\\\\host\\x"), "inside dataset_path"),
    "parent": (entry(BAD, "c/test/../../../x.png"), "inside dataset_path"),
    "parent by backslash": (entry(BAD, "..\\x.png"), "inside dataset_path"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_labels_refused_by_name(tmp_path, name):
    content, named = REFUSED[name]
    message = refusal(label, tree(tmp_path), content, names=named)
    assert LABEL_FILE in message


def test_labels_must_be_a_file(tmp_path):
    root = tree(tmp_path)
    (root / LABEL_FILE).symlink_to(root / "none")
    dataset = load_dataset(root, "c")
    refusal(read_labels, dataset, names="No such file")
    (root / LABEL_FILE).unlink()
    (root / LABEL_FILE).mkdir()
    refusal(read_labels, dataset, names="Is a directory")


names = st.text(string.ascii_letters + "./\\:é图\n ", max_size=12)
keys = st.one_of(st.sampled_from(sorted(WELL)), names)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), names)
values = st.one_of(
    st.sampled_from([GOOD, BAD]),
    st.fixed_dictionaries({"label": st.sampled_from(["good", "bad"])})
    | st.dictionaries(st.sampled_from(["label", "defect"]), leaves, max_size=3),
    st.recursive(leaves, st.lists, max_leaves=4),
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(keys, values, max_size=5))
def test_labels_read_exactly_what_the_contract_allows(tmp_path_factory, entries):
    root = tmp_path_factory.getbasetemp() / "labels"
    if not root.exists():
        tree(root)
    ok = {}
    for key, value in entries.items():
        key = key.replace("\\", "/").removeprefix("./")
        inside = key[:1] != "/" and key[1:2] != ":" and ".." not in key.split("/")
        shaped = isinstance(value, dict) and value.get("label") in ("good", "bad")
        defect = value.get("defect") or "" if shaped else None
        named = isinstance(defect, str) and "\n" not in defect
        if not (inside and shaped and named) or key in ok:
            refusal(label, root, entries, names=LABEL_FILE)
            return
        ok[key] = int(value["label"] == "bad")
    labels = label(root, entries)
    assert labels.is_bad.tolist() == [ok.get(key, -1) for key in sorted(WELL)]
    for key in ok:
        stray = key.startswith("c/test/") and key not in WELL
        if stray:
            assert any(one_line(key) in problem for problem in labels.problems)


def mask_tree(tmp_path, first, second) -> tuple[Dataset, Labels]:
    root = tree(tmp_path, ground_truth=0)
    for i, mask in enumerate((first, second)):
        if mask is not None:
            data = encode(np.asarray(mask, np.uint8), ".png")
            (root / f"c/ground_truth/{i:03}.png").write_bytes(data)
    labels = label(root, WELL)
    return load_dataset(root, "c"), labels


full = np.ones((9, 9))


@pytest.mark.parametrize(
    "first, second, problems",
    [
        (None, None, []),
        (None, full, []),
        (0 * full, full * 255, []),
        (full, full, ["marks a defect on a good image"]),
        (None, 0 * full, ["mask of a bad image is empty"]),
        (0 * full, None, ["bad image without a mask"]),
    ],
)
def test_masks_are_checked_against_labels(tmp_path, first, second, problems):
    found = check_masks(*mask_tree(tmp_path, first, second))
    assert len(found) == len(problems)
    assert all(part in line for part, line in zip(problems, found, strict=True))


def test_mask_of_another_size_is_refused(tmp_path):
    dataset, labels = mask_tree(tmp_path, None, np.ones((9, 8)))
    refusal(check_masks, dataset, labels, names="001.png: mask of 8x9")


def test_mask_without_an_image_is_reported(tmp_path):
    root = tree(tmp_path, ground_truth=3)
    labels = label(root, WELL)
    assert [p.name for p in labels.masks] == ["000.png", "001.png"]
    assert labels.problems == ["mask without an image: 002.png"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["label", "defect", "c/test/0.png"]) | st.text(max_size=8),
            inner | st.sampled_from(["good", "bad"]),
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(anything)
def test_any_json_is_labels_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    try:
        entries = parse_labels(path)
    except InputError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1
    else:
        assert isinstance(value, dict) and len(entries) == len(value)
        assert all(is_bad in (0, 1) for is_bad, _ in entries.values())
