"""What a data folder can contain: the right result, or one line that names it."""

import io
import json
import os
import shutil
import string
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import helpers as hp

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RGB[..., 0]
SHARED = Path(os.environ.get("ANOMALY_SHARED", Path(hp.__file__).parents[1] / "shared"))


def encode(array, suffix: str) -> bytes:
    """Encode by OpenCV, so that what Pillow reads was not written by Pillow."""
    array = array[..., ::-1] if array.ndim == 3 else array
    return cv2.imencode(suffix, array)[1].tobytes()


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(name + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + name + data + crc


def png_start(width: int, height: int) -> bytes:
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = png_chunk(b"IHDR", size + b"\x08\x00\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(99)))


def refusal(call, *args, names: str = "") -> str:
    """The message of the InputError that `call` must raise."""
    with pytest.raises(hp.InputError) as caught:
        call(*args)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert names in message
    return message


def tree(root: Path, **folders) -> Path:
    """Lay out category c: good="2" images in train/good, and so on."""
    folders = {"train/good": 2, "test": 2} | folders
    for number, (folder, count) in enumerate(folders.items()):
        (root / "c" / folder).mkdir(parents=True)
        for i in range(count):
            image = np.random.default_rng([number, i]).integers(0, 256, (9, 9, 3))
            data = encode(image.astype(np.uint8), ".png")
            (root / "c" / folder / f"{i:03}.png").write_bytes(data)
    return root


def label(root: Path, entries) -> hp.Labels:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    (root / hp.LABEL_FILE).write_bytes(text)
    return hp.read_labels(hp.load_dataset(root, "c"))


# --------------------------------------------------------------------- images
white_half = np.dstack([RGB, np.full((6, 8), 255, np.uint8)])
white_half[:, 4:, 3] = 0
on_white = np.where(white_half[..., 3:] == 0, 255, RGB)
palette = Image.fromarray(RGB).quantize(16)
palette_rgb = np.asarray(palette.convert("RGB"))
grey3 = np.repeat(GREY[..., None], 3, axis=2)
rotated = Image.Exif()
rotated[0x0112] = 6  # to be shown turned clockwise by 90 degrees

READABLE = {
    "rgb.png": (encode(RGB, ".png"), RGB),
    "rgb.bmp": (encode(RGB, ".bmp"), RGB),
    "rgb.tiff": (encode(RGB, ".tiff"), RGB),
    "grey.png": (encode(GREY, ".png"), grey3),
    "grey.bmp": (encode(GREY, ".bmp"), grey3),
    "grey.tif": (encode(GREY, ".tif"), grey3),
    "grey16.png": (encode(GREY.astype(np.uint16) * 257, ".png"), grey3),
    "grey16.tif": (encode(GREY.astype(np.uint16) * 257, ".tif"), grey3),
    "rgb16.png": (encode(RGB.astype(np.uint16) * 257, ".png"), RGB),
    "rgb16.tif": (encode(RGB.astype(np.uint16) * 257, ".tif"), RGB),
    "one_pixel.png": (encode(RGB[:1, :1], ".png"), RGB[:1, :1]),
    "one_bit.png": (
        saved(Image.fromarray(GREY > 127), "PNG"),
        np.repeat(np.uint8(255) * (GREY > 127)[..., None], 3, axis=2),
    ),
    "palette.png": (saved(palette, "PNG"), palette_rgb),
    "palette_alpha.png": (
        saved(palette, "PNG", transparency=b"\0" * 16),
        np.full_like(RGB, 255),
    ),
    "alpha.png": (saved(Image.fromarray(white_half), "PNG"), on_white),
    "alpha.tif": (saved(Image.fromarray(white_half), "TIFF"), on_white),
    "grey_alpha.png": (
        saved(Image.fromarray(white_half[..., [0, 3]], "LA"), "PNG"),
        np.where(white_half[..., 3:] == 0, 255, grey3),
    ),
    "cmyk.tif": (saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB),
    "exif.png": (
        saved(Image.fromarray(RGB), "PNG", exif=rotated),
        np.rot90(RGB, -1),
    ),
    "exif.tif": (
        saved(Image.fromarray(RGB), "TIFF", tiffinfo={0x0112: 6}),
        np.rot90(RGB, -1),
    ),
    "png_called.JPG": (encode(RGB, ".png"), RGB),
    "锯齿 拉链 🧵.png": (encode(RGB, ".png"), RGB),
}


@pytest.mark.parametrize("name", READABLE)
def test_read_image_is_exact_for_lossless_kinds(tmp_path, name):
    data, expected = READABLE[name]
    (tmp_path / name).write_bytes(data)
    image = hp.read_image(tmp_path / name)
    assert image.dtype == np.uint8 and image.flags.writeable
    np.testing.assert_array_equal(image, expected)
    assert (tmp_path / name).read_bytes() == data


@pytest.mark.parametrize(
    "name, options",
    [("rgb", {}), ("cmyk", {}), ("exif", {"exif": rotated}), ("L", {})],
)
def test_read_image_jpeg(tmp_path, name, options):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    expected = np.repeat(np.add.outer(ramp // 2, ramp[:48] // 2)[..., None], 3, axis=2)
    image = Image.fromarray(expected)
    if name in ("cmyk", "L"):
        image = image.convert(name.upper())
    (tmp_path / "a.jpeg").write_bytes(saved(image, "JPEG", quality=98, **options))
    expected = np.rot90(expected, -1) if name == "exif" else expected
    result = hp.read_image(tmp_path / "a.jpeg")
    assert np.abs(result.astype(int) - expected).max() <= 6


def test_read_image_takes_the_photo_of_a_jpeg_with_preview(tmp_path):
    photo, preview = Image.fromarray(RGB), Image.new("RGB", (4, 4))
    data = saved(photo, "MPO", save_all=True, append_images=[preview])
    (tmp_path / "a.jpg").write_bytes(data)
    assert hp.read_image(tmp_path / "a.jpg").shape == RGB.shape


noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
flipped = bytearray(encode(noise, ".png"))
flipped[len(flipped) // 2] ^= 4
bmp = encode(RGB, ".bmp")
UNREADABLE = {
    "empty.png": (b"", "truncated"),
    "text.png": (b"no image at all\n" * 9, "truncated"),
    "cut.png": (encode(noise, ".png")[:-20], "truncated"),
    "cut_in_half.png": (encode(noise, ".png")[:6000], "truncated"),
    "cut.jpg": (encode(noise, ".jpg")[:-40], "truncated"),
    "cut.bmp": (encode(noise, ".bmp")[:-40], "truncated"),
    "cut.tif": (encode(noise, ".tif")[:-40], "truncated"),
    "bit_flipped.png": (bytes(flipped), "damaged"),
    "gif.png": (saved(frames[0], "GIF"), "cannot be read as an image"),
    "bomb.png": (png_start(20_000, 20_000), "more than 100 megapixels"),
    "bomb_small.png": (png_start(10_001, 10_000), "more than 100 megapixels"),
    "bomb.bmp": (
        bmp[:18] + (30_000).to_bytes(4, "little") * 2 + bmp[26:],
        "more than 100 megapixels",
    ),
    "animated.png": (
        saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "2 frames or pages",
    ),
    "pages.tif": (
        saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "2 frames or pages",
    ),
    "float.tif": (encode(GREY.astype(np.float32), ".tif"), "8 or 16 bit"),
    "int32.tif": (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "8 or 16 bit"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_read_image_refuses_by_name(tmp_path, name):
    data, reason = UNREADABLE[name]
    (tmp_path / name).write_bytes(data)
    assert reason in refusal(hp.read_image, tmp_path / name, names=name)


def test_read_image_refuses_what_is_no_file(tmp_path):
    assert "No such file" in refusal(hp.read_image, tmp_path / "a.png", names="a.png")
    refusal(hp.read_image, tmp_path, names=str(tmp_path))
    refusal(hp.read_image, tmp_path / "a\0\n.png", names=r"a\x00\n.png")


@pytest.mark.parametrize("size", [(3, 4), (12, 16), (1, 40), (6, 8)])
def test_read_image_resizes_to_height_and_width(tmp_path, size):
    path = tmp_path / "a.png"
    path.write_bytes(encode(np.full((6, 8, 3), 77, np.uint8), ".png"))
    np.testing.assert_array_equal(hp.read_image(path, size), np.full((*size, 3), 77))


def test_read_image_averages_when_it_shrinks(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(noise, ".png"))
    means = noise.reshape(8, 8, 4, 16, 3).mean(axis=(1, 3))
    result = hp.read_image(tmp_path / "a.png", (8, 4))
    assert np.abs(result - means).max() <= 0.5


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([".png", ".bmp", ".tiff"]),
    st.sampled_from([(), (3,)]),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(0, 2**32 - 1),
)
def test_any_lossless_image_is_read_as_its_upper_byte(
    tmp_path_factory, height, width, suffix, channels, dtype, seed
):
    if suffix == ".bmp":
        dtype = np.uint8
    high = np.iinfo(dtype).max + 1
    shape = (height, width, *channels)
    array = np.random.default_rng(seed).integers(0, high, shape, dtype=dtype)
    path = tmp_path_factory.mktemp("image") / ("a" + suffix)
    path.write_bytes(encode(array, suffix))
    upper = array >> (8 * (array.itemsize - 1))
    upper = upper if channels else upper[..., None]
    expected = np.broadcast_to(upper, (height, width, 3))
    np.testing.assert_array_equal(hp.read_image(path), expected)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200), st.sampled_from([b"", b"BM", png_start(4, 4)]))
def test_arbitrary_bytes_are_an_image_or_refused(tmp_path_factory, data, start):
    path = tmp_path_factory.mktemp("image") / "a.png"
    path.write_bytes(start + data)
    try:
        assert hp.read_image(path).shape[2] == 3
    except hp.InputError as error:
        assert len(str(error).splitlines()) == 1 and "a.png" in str(error)


# -------------------------------------------------------------------- folders
def test_load_dataset_sorts_and_ignores_what_is_no_image(tmp_path):
    root = tree(tmp_path, **{"train/bad": 1, "test/.ipynb_checkpoints": 1})
    test = root / "c" / "test"
    for name in (".DS_Store", "._000.png", "Thumbs.db", "notes.txt"):
        (test / name).write_bytes(b"x")
    shutil.copy(test / "000.png", test / "Z.PNG")
    shutil.copy(test / "000.png", test / "Å 图 🌰.Jpeg")
    dataset = hp.load_dataset(root, "c")
    names = [p.name for p in dataset.test]
    assert names == ["000.png", "001.png", "Z.PNG", "Å 图 🌰.Jpeg"]
    assert (len(dataset.train_good), len(dataset.train_bad)) == (2, 1)
    assert hp.categories(root) == ["c"]


def test_load_dataset_follows_links_and_needs_one_image(tmp_path):
    root = tree(tmp_path / "real", **{"train/good": 1, "test": 1})
    (tmp_path / "link").symlink_to(root)
    (root / "c/test/link.png").symlink_to(root / "c/train/good/000.png")
    dataset = hp.load_dataset(tmp_path / "link", "c")
    assert dataset.train_bad == []
    assert [hp.read_image(p).shape for p in dataset.test] == [(9, 9, 3)] * 2


def test_load_dataset_leaves_read_only_data_untouched(tmp_path):
    root = tree(tmp_path)
    files = sorted(root.rglob("*"))
    before = [(p, p.stat().st_mtime_ns) for p in files]
    for path in files:
        path.chmod(0o555 if path.is_dir() else 0o444)
    dataset = hp.load_dataset(root, "c")
    hp.read_labels(dataset), hp.find_duplicates(dataset), hp.data_fingerprint(dataset)
    assert [(p, p.stat().st_mtime_ns) for p in sorted(root.rglob("*"))] == before
    for path in files:
        path.chmod(0o755)


def remove(path):
    return lambda root: shutil.rmtree(root / path)


def empty(path):
    return lambda root: [p.unlink() for p in (root / path).iterdir()]


def write(path, data=b"x"):
    return lambda root: (root / path).write_bytes(data)


BAD_TREES = {
    "train/good missing": (remove("c/train/good"), "train/good"),
    "train/good empty": (empty("c/train/good"), "train/good"),
    "test missing": (remove("c/test"), "c/test"),
    "test empty": (empty("c/test"), "c/test"),
    "train/bad is a file": (write("c/train/bad"), "train/bad"),
    "folder in test": (
        lambda root: (root / "c/test/crack").mkdir(),
        "tools/import_mvtec.py",
    ),
    "folder in train": (lambda root: (root / "c/train/good/x").mkdir(), "good/x"),
    "foreign format": (write("c/test/a.webp"), "a.webp: convert it"),
    "broken link": (
        lambda root: (root / "c/test/a.png").symlink_to(root / "none"),
        "a.png: not a file",
    ),
    "pipe": (lambda root: os.mkfifo(root / "c/test/a.png"), "a.png: not a file"),
    "line break in name": (write("c/test/a\nb.png"), r"a\nb.png"),
    "name that is not UTF-8": (write("c/test/\udcff.png"), r"\udcff.png"),
    "same stem": (write("c/test/001.jpg"), "001.png: 001.jpg has the same stem"),
}


@pytest.mark.parametrize("name", BAD_TREES)
def test_load_dataset_refuses_by_name(tmp_path, name):
    spoil, named = BAD_TREES[name]
    root = tree(tmp_path)
    spoil(root)
    refusal(hp.load_dataset, root, "c", names=named)


@pytest.mark.parametrize(
    "category", ["", ".", "..", "d", "c/", "c/../c", "/", "C", ".hidden", "c\0", "c\\"]
)
def test_unknown_category_says_which_there_are(tmp_path, category):
    root = tree(tmp_path)
    (root / ".hidden").mkdir()
    (root / "no_category").mkdir()
    refusal(hp.load_dataset, root, category, names="available: c")


def test_unknown_category_suggests_the_nearest(tmp_path):
    tree(tmp_path)
    (tmp_path / "c").rename(tmp_path / "zipper")
    refusal(hp.load_dataset, tmp_path, "ziper", names="did you mean 'zipper'?")


@pytest.mark.parametrize("root", ["none", "file", "nul\0"])
def test_dataset_path_must_be_a_folder(tmp_path, root):
    (tmp_path / "file").write_bytes(b"")
    refusal(hp.load_dataset, tmp_path / root, "c", names="not a readable folder")


# --------------------------------------------------------------------- labels
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
    labels = hp.read_labels(hp.load_dataset(tree(tmp_path), "c"))
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
    assert hp.LABEL_FILE in message


def test_labels_must_be_a_file(tmp_path):
    root = tree(tmp_path)
    (root / hp.LABEL_FILE).symlink_to(root / "none")
    dataset = hp.load_dataset(root, "c")
    refusal(hp.read_labels, dataset, names="No such file")
    (root / hp.LABEL_FILE).unlink()
    (root / hp.LABEL_FILE).mkdir()
    refusal(hp.read_labels, dataset, names="Is a directory")


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
            refusal(label, root, entries, names=hp.LABEL_FILE)
            return
        ok[key] = int(value["label"] == "bad")
    labels = label(root, entries)
    assert labels.is_bad.tolist() == [ok.get(key, -1) for key in sorted(WELL)]
    for key in ok:
        stray = key.startswith("c/test/") and key not in WELL
        if stray:
            assert any(hp.one_line(key) in problem for problem in labels.problems)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_messages_stay_on_one_line_that_can_be_printed(text):
    line = str(hp.InputError(text))
    line.encode()
    assert len(line.splitlines()) <= 1
    assert hp.one_line(line) == line


# ---------------------------------------------------------------------- masks
def mask_tree(tmp_path, first, second) -> tuple[hp.Dataset, hp.Labels]:
    root = tree(tmp_path, ground_truth=0)
    for i, mask in enumerate((first, second)):
        if mask is not None:
            data = encode(np.asarray(mask, np.uint8), ".png")
            (root / f"c/ground_truth/{i:03}.png").write_bytes(data)
    labels = label(root, WELL)
    return hp.load_dataset(root, "c"), labels


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
    found = hp.check_masks(*mask_tree(tmp_path, first, second))
    assert len(found) == len(problems)
    assert all(part in line for part, line in zip(problems, found, strict=True))


def test_mask_of_another_size_is_refused(tmp_path):
    dataset, labels = mask_tree(tmp_path, None, np.ones((9, 8)))
    refusal(hp.check_masks, dataset, labels, names="001.png: mask of 8x9")


@pytest.mark.parametrize("high", [1, 255])
def test_read_mask(tmp_path, high):
    truth = RNG.random((9, 9)) > 0.5
    (tmp_path / "m.png").write_bytes(encode(np.uint8(high) * truth, ".png"))
    np.testing.assert_array_equal(hp.read_mask(tmp_path / "m.png", (9, 9)), truth)


def test_mask_without_an_image_is_reported(tmp_path):
    root = tree(tmp_path, ground_truth=3)
    labels = label(root, WELL)
    assert [p.name for p in labels.masks] == ["000.png", "001.png"]
    assert labels.problems == ["mask without an image: 002.png"]


# ----------------------------------------------------- duplicates, fingerprint
def scene(seed: int) -> np.ndarray:
    """Aligned products: one common shape, and a texture of each one's own."""
    y, x = np.mgrid[:128, :128]
    shape = 60 * (np.hypot(x - 64, y - 64) < 40) + 40 * (x % 16 < 8)
    own = np.random.default_rng(seed).normal(0, 25, (32, 32))
    own = cv2.resize(own, (128, 128), interpolation=cv2.INTER_CUBIC)
    return np.repeat(
        np.clip(80 + shape + own, 0, 255).astype(np.uint8)[..., None], 3, 2
    )


def resized(array: np.ndarray, factor: float) -> np.ndarray:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(array, None, fx=factor, fy=factor, interpolation=method)


COPIES = {
    "identical": ("identical", lambda a: encode(a, ".png")),
    "other format": ("identical", lambda a: encode(a, ".bmp")),
    "jpeg": ("near", lambda a: encode(a, ".jpg")),
    "half size": ("near", lambda a: encode(resized(a, 0.5), ".png")),
    "double": ("near", lambda a: encode(resized(a, 2), ".png")),
    "brighter": ("near", lambda a: encode(cv2.add(a, (30, 30, 30, 0)), ".png")),
    "contrast": ("near", lambda a: encode(cv2.convertScaleAbs(a, alpha=0.7), ".png")),
}


@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize("name", COPIES)
def test_duplicates_between_train_and_test_are_found(tmp_path, name, count):
    kind, copy = COPIES[name]
    root = tree(tmp_path, **{"train/good": 0, "test": 0})
    good, test = root / "c/train/good", root / "c/test"
    for i in range(count):
        (good / f"{i}.png").write_bytes(encode(scene(i), ".png"))
        if i:
            (test / f"{i}.png").write_bytes(encode(scene(100 + i), ".png"))
    (test / "copy.png").write_bytes(copy(scene(0)))
    found = hp.find_duplicates(hp.load_dataset(root, "c"))
    assert found == [(good / "0.png", test / "copy.png", kind)]


def test_a_noisy_copy_is_told_from_the_mean_of_all(tmp_path):
    root = tree(tmp_path, **{"train/good": 0, "test": 0})
    for i in range(12):
        data = encode(scene(i), ".png")
        (root / f"c/train/good/{i}.png").write_bytes(data)
    copy = scene(0) + np.random.default_rng(0).normal(0, 16, (128, 128, 3))
    copy = np.clip(copy, 0, 255).astype(np.uint8)
    (root / "c/test/copy.png").write_bytes(encode(copy, ".png"))
    ((earlier, _, kind),) = hp.find_duplicates(hp.load_dataset(root, "c"))
    assert (earlier.name, kind) == ("0.png", "near")


def test_flat_pictures_are_duplicates_only_if_identical(tmp_path):
    root = tree(tmp_path, **{"train/good": 0, "test": 0})
    for i in range(1, 4):
        data = encode(scene(i), ".png")
        (root / f"c/train/good/{i}.png").write_bytes(data)
    for name, value in {"train/good/0": 9, "test/0": 9, "test/1": 90}.items():
        flat = np.full((20, 20, 3), value, np.uint8)
        flat[5, 5] += 1  # the same speck of dust on the sensor
        data = encode(flat, ".png")
        (root / f"c/{name}.png").write_bytes(data)
    ((_, later, kind),) = hp.find_duplicates(hp.load_dataset(root, "c"))
    assert (later.name, kind) == ("0.png", "identical")


@pytest.mark.skipif(not (SHARED / "data/course").exists(), reason="no real images")
@pytest.mark.parametrize("category", ["hazelnut", "zipper"])
def test_real_photos_copies_and_no_others_are_duplicates(tmp_path, category):
    dataset = hp.load_dataset(SHARED / "data/course", category)
    assert hp.read_labels(dataset).problems == []
    expected = []
    for i, (kind, copy) in enumerate(COPIES.values()):
        original = dataset.train_good[20 * i]
        (tmp_path / f"{i}.png").write_bytes(copy(hp.read_image(original)))
        expected.append((original, tmp_path / f"{i}.png", kind))
    dataset.test.extend(later for _, later, _ in expected)
    assert hp.find_duplicates(dataset) == expected


def test_fingerprint_depends_on_names_and_bytes_alone(tmp_path):
    def fingerprint(root):
        return hp.data_fingerprint(hp.load_dataset(root, "c"))

    one, two = tree(tmp_path / "1"), tmp_path / "2"
    for path in sorted(one.rglob("*"), reverse=True):  # another order on disk
        if path.is_file():
            copy = two / path.relative_to(one)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    first = fingerprint(one)
    assert first == fingerprint(two)
    label(two, WELL)  # labels are no part of it
    assert first == fingerprint(two)
    (two / "c/test/001.png").rename(two / "c/test/002.png")
    renamed = fingerprint(two)
    (two / "c/test/002.png").write_bytes(encode(RGB, ".png"))
    assert len({first, renamed, fingerprint(two)}) == 3
