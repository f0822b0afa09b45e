"""What a data folder can contain: the right list, or one line that names it."""

import os
import shutil

import pytest
from samples import RGB, encode, label, refusal, tree

from anomaly.dataset import categories, load_dataset
from anomaly.duplicates import find_duplicates
from anomaly.images import read_image
from anomaly.labels import read_labels


def test_load_dataset_sorts_and_ignores_what_is_no_image(tmp_path):
    root = tree(tmp_path, **{"train/bad": 1, "test/.ipynb_checkpoints": 1})
    test = root / "c" / "test"
    for name in (".DS_Store", "._000.png", "Thumbs.db", "notes.txt"):
        (test / name).write_bytes(b"x")
    shutil.copy(test / "000.png", test / "Z.PNG")
    shutil.copy(test / "000.png", test / "Å 图 🌰.Jpeg")
    dataset = load_dataset(root, "c")
    names = [p.name for p in dataset.test]
    assert names == ["000.png", "001.png", "Z.PNG", "Å 图 🌰.Jpeg"]
    assert (len(dataset.train_good), len(dataset.train_bad)) == (2, 1)
    assert categories(root) == ["c"]


def test_load_dataset_follows_links_and_needs_one_image(tmp_path):
    root = tree(tmp_path / "real", **{"train/good": 1, "test": 1})
    (tmp_path / "link").symlink_to(root)
    (root / "c/test/link.png").symlink_to(root / "c/train/good/000.png")
    dataset = load_dataset(tmp_path / "link", "c")
    assert dataset.train_bad == []
    assert [read_image(p).shape for p in dataset.test] == [(9, 9, 3)] * 2


def test_load_dataset_leaves_read_only_data_untouched(tmp_path):
    root = tree(tmp_path)
    files = sorted(root.rglob("*"))
    before = [(p, p.stat().st_mtime_ns) for p in files]
    for path in files:
        path.chmod(0o555 if path.is_dir() else 0o444)
    dataset = load_dataset(root, "c")
    read_labels(dataset), find_duplicates(dataset), dataset.fingerprint()
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
    "foreign format": (
        write("c/test/a.dng"),
        "a.dng: convert it",
    ),
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
    refusal(load_dataset, root, "c", names=named)


@pytest.mark.parametrize(
    "category", ["", ".", "..", "d", "c/", "c/../c", "/", "C", ".hidden", "c\0", "c\\"]
)
def test_unknown_category_says_which_there_are(tmp_path, category):
    root = tree(tmp_path)
    (root / ".hidden").mkdir()
    (root / "no_category").mkdir()
    refusal(load_dataset, root, category, names="available: c")


def test_unknown_category_suggests_the_nearest(tmp_path):
    tree(tmp_path)
    (tmp_path / "c").rename(tmp_path / "zipper")
    refusal(load_dataset, tmp_path, "ziper", names="did you mean 'zipper'?")


@pytest.mark.parametrize("root", ["none", "file", "nul\0"])
def test_dataset_path_must_be_a_folder(tmp_path, root):
    (tmp_path / "file").write_bytes(b"")
    refusal(load_dataset, tmp_path / root, "c", names="not a readable folder")


def test_fingerprint_depends_on_names_and_bytes_alone(tmp_path):
    def fingerprint(root):
        return load_dataset(root, "c").fingerprint()

    one, two = tree(tmp_path / "1"), tmp_path / "2"
    for path in sorted(one.rglob("*"), reverse=True):  # another order on disk
        if path.is_file():
            copy = two / path.relative_to(one)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    first = fingerprint(one)
    assert first == fingerprint(two)
    label(two, {})  # labels are no part of it
    assert first == fingerprint(two)
    (two / "c/test/001.png").rename(two / "c/test/002.png")
    renamed = fingerprint(two)
    (two / "c/test/002.png").write_bytes(encode(RGB, ".png"))
    assert len({first, renamed, fingerprint(two)}) == 3
