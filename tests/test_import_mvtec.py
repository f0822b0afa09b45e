"""The importer of MVTec AD's layout: what it writes, and what it refuses."""

import io
import json
import os
import random
import shutil
import signal
import tarfile
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_fuzz import mutate

import import_mvtec
from anomaly.files import ROOT
from anomaly.labels import LABEL_FILE as LABELS
from mvtec import install, layout

SHARED = Path(os.environ.get("ANOMALY_SHARED", ROOT.parent / "shared"))
REAL = SHARED / "data" / "mvtec_layout"


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


def make_category(folder: Path, seed: int = 0) -> Path:
    """4 train/good, 3 test/good, 3 crack, 2 cut; masks of 0 and 1 in cut."""
    rng = np.random.default_rng(seed)

    def photo() -> np.ndarray:
        return rng.integers(0, 256, (12, 16, 3), np.uint8)

    for i in range(4):
        write(folder / f"train/good/{i:03d}.png", photo())
    for kind, n in {"good": 3, "crack": 3, "cut": 2}.items():
        for i in range(n):
            write(folder / f"test/{kind}/{i:03d}.png", photo())
            if kind != "good":
                mask = np.zeros((12, 16), np.uint8)
                mask[i : i + 3, 4:9] = 1 if kind == "cut" else 255
                write(folder / f"ground_truth/{kind}/{i:03d}_mask.png", mask)
    (folder / "license.txt").write_text("free")
    return folder


@pytest.fixture
def bottle(tmp_path) -> Path:
    return make_category(tmp_path / "in" / "bottle")


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


def run(source, root, *options) -> int:
    status = import_mvtec.main([str(source), "--dataset-path", str(root), *options])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return status


def tree(root: Path) -> dict[str, bytes]:
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file()
    }


def pack(folder: Path, archive: Path) -> Path:
    """Pack what lies in `folder`, into the kind of archive that the name says."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder))
    else:
        mode = {".xz": "w:xz", ".gz": "w:gz", ".tar": "w"}[archive.suffix]
        with tarfile.open(archive, mode) as file:
            for path in sorted(folder.iterdir()):
                file.add(path, path.name)
    return archive


def refused(capsys, source, root, *options) -> str:
    """Run; check exit status 2, one line on stderr, and an untouched data set."""
    before = tree(root) if root.exists() else None
    assert run(source, root, *options) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.endswith("\n")
    assert (tree(root) if root.exists() else None) == before
    if before is not None:
        assert not [p for p in root.iterdir() if p.name.startswith(".import-")]
    return err


# What it writes


def test_every_image_arrives_once_with_its_label_and_mask(bottle, root, capsys):
    assert run(bottle, root) == 0
    assert "4 in train/good, 0 in train/bad, 8 in test" in capsys.readouterr().out
    for path in (bottle / "train/good").iterdir():
        copy = root / "bottle/train/good" / path.name
        assert copy.read_bytes() == path.read_bytes()
    assert not (root / "bottle/train/bad").exists()
    assert (root / "bottle/license.txt").read_text() == "free"

    origin = {p.read_bytes(): p for p in (bottle / "test").rglob("*.png")}
    names = sorted(p.name for p in (root / "bottle/test").iterdir())
    assert names == [f"{i:03d}.png" for i in range(8)]
    labels = json.loads((root / LABELS).read_text())
    assert sorted(labels) == [f"bottle/test/{name}" for name in names]
    for name in names:
        source = origin.pop((root / "bottle/test" / name).read_bytes())
        entry = {"original_category": "bottle", "label": "good"}
        mask = root / "bottle/ground_truth" / name
        if source.parent.name == "good":
            assert not mask.exists()
        else:
            entry |= {"label": "bad", "defect": source.parent.name}
            truth = bottle / f"ground_truth/{source.parent.name}/{source.stem}_mask.png"
            wanted = cv2.imread(str(truth), cv2.IMREAD_UNCHANGED) > 0
            found = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
            assert found.dtype == np.uint8
            assert np.array_equal(found, wanted * np.uint8(255))
        assert labels[f"bottle/test/{name}"] == entry
    assert not origin


def test_order_of_test_images_does_not_tell_their_label(bottle, root):
    for i in range(3, 40):
        shutil.copy(bottle / "test/good/000.png", bottle / f"test/good/{i:03d}.png")
    assert run(bottle, root) == 0
    labels = json.loads((root / LABELS).read_text())
    bad = [entry["label"] == "bad" for _, entry in sorted(labels.items())]
    assert sum(bad) == 5 and not all(bad[:5]) and not all(bad[-5:])


@pytest.mark.parametrize("name", ["x.tar.xz", "x.tar.gz", "x.tar", "x.zip"])
@pytest.mark.parametrize("nested", [False, True])
def test_archive_gives_what_the_folder_gives(bottle, root, tmp_path, name, nested):
    assert run(bottle, root, "--train-bad", "2") == 0
    folder = bottle.parent
    if nested:
        (tmp_path / "outer").mkdir()
        folder = folder.rename(tmp_path / "outer" / "in").parent
    archive = pack(folder, tmp_path / name)
    assert run(archive, tmp_path / "other", "--train-bad", "2") == 0
    assert tree(tmp_path / "other") == tree(root)


def test_archive_with_the_category_at_its_top(bottle, root, tmp_path):
    assert run(pack(bottle, tmp_path / "flask.tar.xz"), root) == 0
    assert (root / "flask/test/000.png").exists()
    assert run(tmp_path / "flask.tar.xz", root, "--category", "vial") == 0
    assert (root / "vial/test/000.png").exists()


@pytest.mark.parametrize("seed", range(5))
def test_train_bad_takes_from_every_kind(bottle, root, seed):
    assert run(bottle, root, "--train-bad", "2", "--seed", str(seed)) == 0
    moved = sorted((root / "bottle/train/bad").iterdir())
    assert [p.name[:4] for p in moved] == ["000_", "001_"]
    assert sorted(p.name[4:] for p in moved) == ["crack.png", "cut.png"]
    labels = json.loads((root / LABELS).read_text())
    kinds = Counter(entry.get("defect") for entry in labels.values())
    assert kinds == {None: 3, "crack": 2, "cut": 1}
    tested = {p.read_bytes() for p in (root / "bottle/test").iterdir()}
    assert not tested & {p.read_bytes() for p in moved}


def test_same_seed_same_result_and_another_seed_another(bottle, tmp_path):
    for folder, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert run(bottle, tmp_path / folder, "--seed", seed, "--train-bad", "1") == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert tree(tmp_path / "a") != tree(tmp_path / "c")


def test_whole_data_set_or_one_category_of_it(bottle, root, tmp_path):
    make_category(bottle.parent / "cable", seed=1)
    archive = pack(bottle.parent, tmp_path / "all.tar.xz")
    assert run(archive, root, "--category", "cable") == 0
    assert sorted(p.name for p in root.iterdir()) == ["cable", LABELS]
    one = tree(root)
    assert run(archive, tmp_path / "both") == 0
    both = tree(tmp_path / "both")
    assert {k: v for k, v in both.items() if k.startswith("cable/")} == {
        k: v for k, v in one.items() if k.startswith("cable/")
    }
    assert len(json.loads(both[LABELS])) == 16


def test_labels_of_other_categories_stay(bottle, root):
    root.mkdir()
    old = {
        "bottles/test/1.png": {"original_category": "bottles", "label": "good"},
        "bottle/test/left-over.png": {"original_category": "bottle", "label": "bad"},
        "拉链/test/1.png": {"original_category": "拉链", "label": "bad"},
    }
    (root / LABELS).write_text(json.dumps(old), encoding="utf-8-sig")
    assert run(bottle, root) == 0
    labels = json.loads((root / LABELS).read_text(encoding="utf-8"))
    assert list(labels)[-2:] == ["bottles/test/1.png", "拉链/test/1.png"]
    assert (
        len(labels) == 10
        and labels.items() >= {"拉链/test/1.png": old["拉链/test/1.png"]}.items()
    )


def test_masks_are_optional_as_a_whole(bottle, root, capsys):
    shutil.rmtree(bottle / "ground_truth")
    assert run(bottle, root) == 0
    assert "no masks" in capsys.readouterr().out
    assert not (root / "bottle/ground_truth").exists()


def test_other_image_formats_and_stray_files(bottle, root):
    write(bottle / "test/crack/900.JPG", np.zeros((12, 16), np.uint8))
    write(bottle / "ground_truth/crack/900_mask.bmp", np.full((12, 16, 3), 9, np.uint8))
    write(bottle / "ground_truth/cut/001_mask.png", np.ones((12, 16), np.uint16))
    for stray in ("test/crack/Thumbs.db", "test/crack/._000.png", "train/good/a.txt"):
        (bottle / stray).write_bytes(b"stray")
    assert run(bottle, root) == 0
    [jpeg] = (root / "bottle/test").glob("*.jpg")
    mask = cv2.imread(str(root / f"bottle/ground_truth/{jpeg.stem}.png"), -1)
    assert mask.shape == (12, 16) and (mask == 255).all()
    masks = [cv2.imread(str(p), -1) for p in (root / "bottle/ground_truth").iterdir()]
    assert sum((mask == 255).all() for mask in masks) == 2  # 1 of 65535 counts
    assert len(list((root / "bottle").rglob("*"))) == 4 + 9 + 6 + 1 + 4


def test_photos_that_exif_turns(bottle, root, capsys):
    """The mask is as wide as the photo is shown, not as it is stored."""
    turned = Image.new("RGB", (12, 16))
    turned.getexif()[0x0112] = 6
    turned.save(bottle / "test/cut/900.jpg", exif=turned.getexif())
    mask = bottle / "ground_truth/cut/900_mask.png"
    write(mask, np.ones((16, 12), np.uint8))
    assert "not of the same size" in refused(capsys, bottle, root)
    write(mask, np.ones((12, 16), np.uint8))
    assert run(bottle, root) == 0


def test_non_ascii_names(bottle, tmp_path):
    bottle = bottle.rename(bottle.parent / "榛子")
    (bottle / "test/crack").rename(bottle / "test/裂纹")
    (bottle / "ground_truth/crack").rename(bottle / "ground_truth/裂纹")
    assert run(pack(bottle.parent, tmp_path / "数据.zip"), tmp_path / "数据集") == 0
    labels = json.loads((tmp_path / "数据集" / LABELS).read_text(encoding="utf-8"))
    assert Counter(entry.get("defect") for entry in labels.values())["裂纹"] == 3


def test_relative_dataset_path_is_relative_to_the_project(
    bottle, tmp_path, monkeypatch
):
    monkeypatch.setattr(import_mvtec, "ROOT", tmp_path / "project")
    monkeypatch.chdir(bottle.parent)
    assert run("bottle", "sets/mine") == 0
    assert (tmp_path / "project/sets/mine/bottle/test/000.png").exists()


# What people bring

SCRATCH = np.zeros((64, 64), bool)
SCRATCH[10:50, 30:33] = True
PALETTE = [0, 0, 0, 0, 0, 1, 90, 0, 0]  # the second colour is nearly black


def rgba(colour: int, ground: int) -> Image.Image:
    pixels = np.full((64, 64, 4), ground, np.uint8)
    pixels[..., 3] = 0
    pixels[SCRATCH] = (colour, colour, colour, 255)
    return Image.fromarray(pixels)


def classes() -> Image.Image:
    numbers = np.zeros((64, 64), np.uint8)
    numbers[10:20, 30:33], numbers[20:30, 30:33], numbers[30:50, 30:33] = 1, 3, 4
    return Image.fromarray(numbers)


def palette() -> Image.Image:
    image = Image.fromarray(SCRATCH.astype(np.uint8), "P")
    image.putpalette(PALETTE)
    return image


def grey16(value: int) -> Image.Image:
    return Image.fromarray((SCRATCH * value).astype(np.uint16))


MASKS = {  # whatever its author used, the same scratch
    "JPEG": (Image.fromarray(SCRATCH * np.uint8(255)), ".jpg", {"quality": 75}),
    "JPEG, poor": (Image.fromarray(SCRATCH * np.uint8(255)), ".jpg", {"quality": 40}),
    "JPEG in TIFF": (
        Image.fromarray(SCRATCH * np.uint8(255)),
        ".tif",
        {"compression": "jpeg"},
    ),
    "class numbers": (classes(), ".png", {}),
    "16 bit, 0 and 1": (grey16(1), ".png", {}),
    "16 bit, 0 and 255": (grey16(255), ".tif", {}),
    "16 bit, full range": (grey16(65535), ".png", {}),
    "1 bit": (Image.fromarray(SCRATCH), ".bmp", {}),
    "palette of dark colours": (palette(), ".png", {}),
    "one channel of three": (
        Image.fromarray(SCRATCH[..., None] * np.uint8([0, 0, 1])),
        ".png",
        {},
    ),
    "white on transparent white": (rgba(255, 255), ".png", {}),
    "white on transparent black": (rgba(255, 0), ".png", {}),
    "black on transparent white": (rgba(0, 255), ".png", {}),
    "black on transparent black": (rgba(0, 0), ".tif", {}),
    "grey and alpha, opaque": (
        Image.fromarray(SCRATCH * np.uint8(9)).convert("LA"),
        ".png",
        {},
    ),
}


@pytest.mark.parametrize("kind", MASKS)
def test_every_kind_of_mask_marks_the_same(bottle, root, kind):
    image, suffix, options = MASKS[kind]
    write(bottle / "test/dent/000.png", np.zeros((64, 64), np.uint8))
    mask = bottle / f"ground_truth/dent/000_mask{suffix}"
    mask.parent.mkdir()
    image.save(mask, **options)
    assert run(bottle, root) == 0
    labels = json.loads((root / LABELS).read_text())
    [name] = [Path(k).stem for k, v in labels.items() if v.get("defect") == "dent"]
    found = cv2.imread(str(root / f"bottle/ground_truth/{name}.png"), -1)
    assert np.array_equal(found, SCRATCH * np.uint8(255))


def move(source: str, target: str):
    def change(bottle):
        (bottle / target).parent.mkdir(parents=True, exist_ok=True)
        (bottle / source).rename(bottle / target)

    return change


def remove(name: str):
    return lambda bottle: (bottle / name).unlink()


def put(name: str, content: bytes = b"x"):
    def change(bottle):
        (bottle / name).parent.mkdir(parents=True, exist_ok=True)
        (bottle / name).write_bytes(content)

    return change


def paint(name: str, value, rows=slice(None)):
    def change(bottle):
        pixels = np.zeros((12, 16), np.uint8)
        pixels[rows] = value
        write(bottle / name, pixels)

    return change


def by_date(bottle):
    for i, path in enumerate(sorted((bottle / "train/good").iterdir())):
        day = f"train/good/2024-01-0{1 + i % 2}"
        move(f"train/good/{path.name}", f"{day}/{i // 2}.png")(bottle)


def by_date_everywhere(bottle):
    by_date(bottle)
    move("test/crack/000.png", "test/crack/Monday/000.png")(bottle)
    move("ground_truth/crack/000_mask.png", "ground_truth/crack/Monday/000.png")(bottle)


def btad(bottle):
    """Its names, and one kind of defect."""
    shutil.rmtree(bottle / "test/cut")
    shutil.rmtree(bottle / "ground_truth/cut")
    for old, new in (("train/good", "train/ok"), ("test/good", "test/ok")):
        move(old, new)(bottle)
    for part in ("test", "ground_truth"):
        move(f"{part}/crack", f"{part}/ko")(bottle)
    for i in range(3):
        name = f"ground_truth/ko/{i:03d}"
        move(f"{name}_mask.png", f"{name}.png")(bottle)


def shouted(bottle):
    for part in ("train", "test"):
        move(f"{part}/good", f"{part}/GOOD")(bottle)
        move(part, part.title())(bottle)


def accents(bottle):
    """As an archive that macOS and Linux wrote together."""
    move("test/cut", unicodedata.normalize("NFD", "test/Überhöhe"))(bottle)
    move("ground_truth/cut", unicodedata.normalize("NFC", "ground_truth/überhöhe"))(
        bottle
    )


def linked(bottle):
    move("train/good", "../elsewhere")(bottle)
    (bottle / "train/good").symlink_to(bottle / "../elsewhere")
    move("test/crack/000.png", "../photo.png")(bottle)
    (bottle / "test/crack/000.png").symlink_to(bottle / "../photo.png")


def strays(bottle):
    for folder in ("@eaDir", "__MACOSX", ".thumbnails", "lost+found", "#recycle"):
        for place in ("", "train/", "train/good/", "test/", "test/cut/"):
            put(f"{place}{folder}/000.png/SYNO_THUMB.jpg")(bottle)
    for file in ("notes.md", "a.json", "b.CSV", "c.xml", "Thumbs.db", "desktop.ini"):
        for place in ("", "train/good/", "test/", "test/cut/", "ground_truth/cut/"):
            put(f"{place}{file}")(bottle)
    put("test/.DS_Store")(bottle)


def soft(bottle):
    write(
        bottle / "ground_truth/cut/000_mask.png",
        np.arange(12 * 16, dtype=np.uint8).reshape(12, 16) // 2,
    )


ACCEPTED = {  # what is there, masks that arrive, and what the console says of it
    "a mask is missing": (
        remove("ground_truth/cut/001_mask.png"),
        4,
        "bad images without a mask, which the pixel metrics leave out: cut/001.png",
    ),
    "masks of one kind are missing": (
        lambda b: shutil.rmtree(b / "ground_truth/cut"),
        3,
        "leave out: cut/000.png, cut/001.png",
    ),
    "folders by date": (by_date, 5, "train/good: 2024-01-01_0.png, 2024-01-01_1.png"),
    "folders everywhere": (by_date_everywhere, 5, "brought up from folders"),
    "BTAD's ok and ko": (btad, 3, "read as good: train/ok, test/ok"),
    "GOOD": (shouted, 5, "3 good"),
    "masks": (move("ground_truth", "masks"), 5, "5 masks"),
    "mask": (move("ground_truth", "Mask"), 5, "5 masks"),
    "accents and case": (accents, 5, "2 Überhöhe"),
    "links": (linked, 5, "4 in train/good"),
    "strays": (strays, 5, "2 cut"),
    "two endings, no masks": (
        lambda b: (shutil.rmtree(b / "ground_truth"), put_jpeg(b)),
        0,
        "3 cut",
    ),
    "empty mask of a normal image": (
        paint("ground_truth/good/000.png", 0),
        5,
        "3 good",
    ),
    "empty mask": (
        paint("ground_truth/cut/000_mask.png", 0),
        5,
        "empty masks: cut/000",
    ),
    "inverted mask": (
        paint("ground_truth/cut/000_mask.png", 255, slice(3, None)),
        5,
        "(inverted?): cut/000_mask.png",
    ),
    "soft mask": (soft, 5, "soft edges, of which all but black counts: cut/000"),
}


def put_jpeg(bottle):
    write(bottle / "test/cut/001.jpg", np.zeros((12, 16), np.uint8))


@pytest.mark.parametrize("archive", ["", "x.zip"])
@pytest.mark.parametrize("what", ACCEPTED)
def test_what_people_bring(bottle, root, tmp_path, capsys, what, archive):
    change, count, words = ACCEPTED[what]
    change(bottle)
    if archive and what == "links":
        pytest.skip("an archive's links are refused")
    source = pack(bottle.parent, tmp_path / archive) if archive else bottle
    assert run(source, root) == 0
    out = capsys.readouterr().out
    assert words in out and all(
        line.startswith(("bottle: ", "labels ")) for line in out.splitlines()
    )
    assert len(list((root / "bottle/train/good").iterdir())) == 4
    assert len(list((root / "bottle").glob("ground_truth/*"))) == count
    labels = json.loads((root / LABELS).read_text())
    expected = {"BTAD's ok and ko": 6, "two endings, no masks": 9}.get(what, 8)
    assert len(labels) == len(list((root / "bottle/test").iterdir())) == expected
    assert not [p for p in root.rglob("*") if p.is_symlink()]


# What it refuses


def damage_labels(bottle, root):
    root.mkdir()
    (root / LABELS).write_text('{"a": ')


def labels_are_a_list(bottle, root):
    root.mkdir()
    (root / LABELS).write_text("[]")


def existing_category(bottle, root):
    (root / "BOTTLE").mkdir(parents=True)


def damaged_image(bottle, root):
    path = bottle / "test/good/001.png"
    path.write_bytes(path.read_bytes()[:60])


def mask_of_another_size(bottle, root):
    write(bottle / "ground_truth/cut/000_mask.png", np.zeros((12, 15), np.uint8))


def course_layout(bottle, root):
    for path in list((bottle / "test").rglob("*.png")):
        path.rename(bottle / "test" / f"{path.parent.name}{path.name}")


FAULTS = {
    "no such file": (lambda b, r: shutil.rmtree(b), "no such file or folder"),
    "no train": (lambda b, r: shutil.rmtree(b / "train"), "no category in MVTec AD"),
    "empty train": (
        lambda b, r: [p.unlink() for p in (b / "train/good").iterdir()],
        "no images in train/good",
    ),
    "no test": (lambda b, r: shutil.rmtree(b / "test"), "no images in test/good"),
    "no good": (lambda b, r: shutil.rmtree(b / "test/good"), "no images in test/good"),
    "no defects": (
        lambda b, r: [shutil.rmtree(b / "test" / k) for k in ("crack", "cut")],
        "there is no folder test/crack",
    ),
    "no defects nor masks": (
        lambda b, r: [
            shutil.rmtree(b / k) for k in ("test/crack", "test/cut", "ground_truth")
        ],
        "no images in test/<defect>",
    ),
    "course layout": (course_layout, "they need no import"),
    "mask size": (mask_of_another_size, "not of the same size"),
    **{
        f"unknown kind {name}": (
            lambda b, r, name=name: put(name)(b),
            f"{name}: convert it to PNG",
        )
        for name in (
            "train/good/a.jp2",
            "train/good/a.dng",
            "test/good/a.tga",
            "test/cut/a.npy",
            "test/cut/no ending",
            "test/cut/000.png.",
            "ground_truth/cut/a.gif",
        )
    },
    "a photo above the layout": (
        lambda b, r: put("overview.jpg")(b),
        "bottle/overview.jpg is not in one of the folders",
    ),
    "a photo in train": (
        lambda b, r: put("train/000.png")(b),
        "train/000.png is not in one of the folders: normal images for training belong",
    ),
    "train/bad": (
        lambda b, r: put("train/bad/000.png")(b),
        "train/bad: only normal images are for training; move it to test",
    ),
    "validation": (
        lambda b, r: put("validation/good/000.png")(b),
        "bottle/validation: not part of the layout",
    ),
    "good and ok": (
        lambda b, r: put("test/ok/000.png")(b),
        "test/good and ok both hold normal images",
    ),
    "kinds that differ in case": (
        lambda b, r: put("test/Cut/000.png")(b),
        "cut: Cut has the same name; rename one",
    ),
    "two folders of masks": (
        lambda b, r: put("masks/cut/000.png")(b),
        "which one holds the masks?",
    ),
    "masks beside the images": (
        lambda b, r: put("test/cut/masks/000.png")(b),
        "test/cut/masks: masks belong in ground_truth/<defect>",
    ),
    "masks of no kind": (
        lambda b, r: put("ground_truth/000.png")(b),
        "ground_truth/000.png is not in one of the folders: masks belong",
    ),
    "masks of another kind": (
        lambda b, r: move("ground_truth/cut", "ground_truth/cuts")(b),
        "ground_truth/cuts: there is no folder test/cuts; rename it",
    ),
    "mask of no image": (
        lambda b, r: move(
            "ground_truth/cut/001_mask.png", "ground_truth/cut/001_label.png"
        )(b),
        "cut/001_label.png: no image in test/cut goes with this mask",
    ),
    "two masks of an image": (
        lambda b, r: paint("ground_truth/cut/001.png", 255)(b),
        "001_mask.png: 001.png is for the same image, too",
    ),
    "two images of a mask": (
        lambda b, r: put_jpeg(b),
        "001.png: another image has its stem, and one mask",
    ),
    "mask of a normal image": (
        lambda b, r: paint("ground_truth/good/000.png", 255)(b),
        "good/000.png marks a defect on a normal image",
    ),
    "several frames": (
        lambda b, r: Image.new("L", (16, 12)).save(
            b / "test/good/a.tif", save_all=True, append_images=[Image.new("L", (9, 9))]
        ),
        "test/good/a.tif: 2 frames or pages; save the right one alone",
    ),
    "float pixels": (
        lambda b, r: Image.new("F", (16, 12)).save(b / "train/good/a.tif"),
        "train/good/a.tif: pixels of 1 channel, 32 bit, float",
    ),
    "names that differ in case": (
        lambda b, r: shutil.copy(b / "train/good/000.png", b / "train/good/000.PNG"),
        "000.PNG has the same name; rename one",
    ),
    "folders by date that collide": (
        lambda b, r: (
            shutil.copytree(b / "train/good", b / "train/good/day"),
            shutil.copy(b / "train/good/000.png", b / "train/good/day_001.png"),
        ),
        "day_001.png: ",
    ),
    "line break in a name": (
        lambda b, r: move("train/good/000.png", "train/good/0\n0.png")(b),
        "the name does not fit; rename it",
    ),
    "broken link": (
        lambda b, r: (b / "test/cut/a.png").symlink_to(b / "none"),
        "test/cut/a.png: not a file (a broken link?)",
    ),
    "link to itself": (
        lambda b, r: (b / "test/cut/a").symlink_to(b / "test/cut"),
        "more than 3 folders deep",
    ),
    "pipe": (lambda b, r: os.mkfifo(b / "test/cut/a.png"), "a.png: not a file"),
    "kind that Windows reserves": (
        lambda b, r: (
            move("test/cut", "test/aux")(b)
            or move("ground_truth/cut", "ground_truth/aux")(b)
        ),
        "'aux' cannot name",
    ),
    "kind with a long name": (
        lambda b, r: (
            move("test/cut", f"test/{'x' * 240}")(b)
            or move("ground_truth/cut", f"ground_truth/{'x' * 240}")(b)
        ),
        "cannot name",
    ),
    "kind with a dot at the end": (
        lambda b, r: (
            move("test/cut", "test/cut.")(b)
            or move("ground_truth/cut", "ground_truth/cut.")(b)
        ),
        "'cut.' cannot name",
    ),
    "VisA": (
        lambda b, r: (
            shutil.rmtree(b),
            put("Data/Images/Normal/000.JPG")(b),
            put("Data/Masks/Anomaly/000.png")(b),
        ),
        "VisA's own? its authors' prepare_data.py writes this layout",
    ),
    "folders of another layout": (
        lambda b, r: (move("train", "normal")(b), move("test", "abnormal")(b)),
        "its folders are abnormal, ground_truth, normal",
    ),
    "damaged image": (damaged_image, "bottle/test/good/001.png: cannot be read"),
    "damaged labels": (damage_labels, "not JSON in UTF-8"),
    "labels a list": (labels_are_a_list, "must be one object"),
    "exists": (existing_category, "exists and is left as it is"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(bottle, root, capsys, fault):
    change, message = FAULTS[fault]
    change(bottle, root)
    assert message in refused(capsys, bottle, root)


def test_one_bad_category_of_two_and_none_is_imported(bottle, root, tmp_path, capsys):
    cable = make_category(bottle.parent / "cable", seed=1)
    (cable / "test/cut/001.png").write_bytes(b"")
    assert "cable/test/cut/001.png: is empty" in refused(capsys, bottle.parent, root)
    assert not root.exists()


def test_an_unfinished_category_beside_others(bottle, root, capsys):
    cable = make_category(bottle.parent / "cable", seed=1)
    (cable / "train/good").rename(cable / "train/godo")
    assert "cable: no normal images in" in refused(capsys, bottle.parent, root)
    assert run(bottle.parent, root, "--category", "bottle") == 0


def test_second_import_is_refused_and_the_first_kept(bottle, root, capsys):
    assert run(bottle, root) == 0
    capsys.readouterr()
    assert "exists" in refused(capsys, bottle, root, "--seed", "1")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--train-bad", "5"], "has 5 defect images"),
        (["--train-bad", "-1"], "not a count"),
        (["--train-bad", "x"], "'x' is not a count"),
        (["--seed", "x"], "--seed"),
        (["--category", "../x"], "'../x' cannot name"),
        (["--category", ""], "'' cannot name"),
        (["--category", "NUL"], "'NUL' cannot name"),
        (["--category", "com1.x"], "'com1.x' cannot name"),
        (["--category", "b" * 201], "cannot name"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_refuses_options(bottle, root, capsys, options, message):
    assert message in refused(capsys, bottle, root, *options)


def test_refuses_a_category_that_is_not_there(bottle, root, tmp_path, capsys):
    for source in (bottle.parent, pack(bottle.parent, tmp_path / "x.tar.xz")):
        err = refused(capsys, source, root, "--category", "cable")
        assert "no category 'cable'" in err


def test_refuses_a_file_as_data_set(bottle, root, capsys):
    root.write_text("a file")
    assert run(bottle, root) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert root.read_text() == "a file"


@pytest.mark.parametrize("name", ["x.tar.xz", "x.tar.gz", "x.tar", "x.zip"])
@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.9])
def test_refuses_broken_off_archives(bottle, root, tmp_path, capsys, name, share):
    archive = pack(bottle.parent, tmp_path / name)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    assert "not a whole" in refused(capsys, archive, root)


@pytest.mark.parametrize(
    "name, at", [("x.tar.xz", 0.5), ("x.tar.gz", 0.5), ("x.zip", 0.5), ("x.tar.gz", 1)]
)
def test_refuses_altered_archives(bottle, root, tmp_path, capsys, name, at):
    archive = pack(bottle.parent, tmp_path / name)
    content = bytearray(archive.read_bytes())
    content[int(at * len(content)) - 6] ^= 0xFF  # at 1: in gzip's checksum
    archive.write_bytes(content)
    refused(capsys, archive, root)


@pytest.mark.parametrize("more", [0, 100])
def test_refuses_a_tar_that_ends_between_members(bottle, root, tmp_path, capsys, more):
    """Python's tarfile takes that for the end of the archive and says nothing."""
    archive = pack(bottle.parent, tmp_path / "x.tar")
    with tarfile.open(archive) as file:
        last = file.getmember("bottle/train/good/003.png")
    archive.write_bytes(archive.read_bytes()[: last.offset + more])
    assert "breaks off" in refused(capsys, archive, root)


def test_refuses_a_tar_with_a_damaged_header(bottle, root, tmp_path, capsys):
    archive = pack(bottle.parent, tmp_path / "x.tar")
    content = bytearray(archive.read_bytes())
    content[content.index(b"bottle/test/good/002.png")] ^= 0xFF
    archive.write_bytes(content)
    assert "not a whole" in refused(capsys, archive, root)


def test_refuses_a_file_that_is_no_archive(bottle, root, capsys):
    assert "not a whole" in refused(capsys, bottle / "train/good/000.png", root)


def tar_with(archive: Path, name: str, kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, "/etc/hostname", 0
    with tarfile.open(archive, "a") as file:
        file.addfile(member, io.BytesIO())


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "bottle/../../evil.png",
        "bottle/.. /evil.png",
        "/evil.png",
        "..\\evil.png",
        "C:\\evil.png",
        "C:evil.png",
        "\\\\server\\evil.png",
    ],
)
@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_refuses_members_that_escape(bottle, root, tmp_path, capsys, name, suffix):
    archive = pack(bottle.parent, tmp_path / f"x.{suffix}")
    if suffix == "tar":
        tar_with(archive, name)
    else:
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(name, b"")
    before = tree(tmp_path)
    assert "is not safe" in refused(capsys, archive, root)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_refuses_links_and_devices(bottle, root, tmp_path, capsys, kind):
    archive = pack(bottle.parent, tmp_path / "x.tar")
    tar_with(archive, "bottle/test/crack/900.png", kind)
    assert "is a link or a device" in refused(capsys, archive, root)


def test_refuses_links_in_a_zip(bottle, root, tmp_path, capsys):
    archive = pack(bottle.parent, tmp_path / "x.zip")
    member = zipfile.ZipInfo("bottle/test/crack/900.png")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(member, "/etc/hostname")
    assert "is a link or a device" in refused(capsys, archive, root)


def test_refuses_names_that_differ_in_case_only(bottle, root, tmp_path, capsys):
    archive = pack(bottle.parent, tmp_path / "x.tar")
    tar_with(archive, "bottle/test/crack/000.PNG")
    assert "twice" in refused(capsys, archive, root)


class Named(zipfile.ZipInfo):
    """A member whose name is written as bytes, without saying in which encoding."""

    raw = b""

    def _encodeFilenameFlags(self):  # noqa: N802
        return self.raw, 0


def zip_of(folder: Path, archive: Path, written) -> Path:
    """Pack `folder`; `written` gives the bytes of a member's name."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            member = Named("x")
            name = path.relative_to(folder).as_posix()
            member.raw = written(f"{name}/" if path.is_dir() else name)
            file.writestr(member, b"" if path.is_dir() else path.read_bytes())
    return archive


ZIPS = {  # the category's name, and how its archive writes names
    "macOS": ("榛子", str.encode),
    "Chinese Windows": ("榛子", lambda name: name.encode("gbk")),
    "Western DOS": ("Öl", lambda name: name.encode("cp437")),
    "backslashes": ("bottle", lambda name: name.replace("/", "\\").encode()),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_names_in_zips_from_everywhere(bottle, root, tmp_path, kind):
    name, written = ZIPS[kind]
    bottle.rename(bottle.parent / name)
    assert run(zip_of(bottle.parent, tmp_path / "x.zip", written), root) == 0
    assert len(list((root / name / "test").iterdir())) == 8


@pytest.mark.parametrize(
    "name, kind, message",
    [
        ("bottle/test/cut", tarfile.REGTYPE, "is both a file and a folder"),
        ("bottle/test/cut/000.png/1.png", tarfile.REGTYPE, "both a file and a folder"),
        (f"bottle/test/{'x' * 300}/1.png", tarfile.REGTYPE, "is too long"),
        ("bottle/test/cut/a.png", tarfile.GNUTYPE_SPARSE, "is a link or a device"),
        ("bottle/test/CUT/000.png", tarfile.REGTYPE, "twice"),
        ("bottle/test/cut/a.tga", tarfile.REGTYPE, "a.tga: convert it"),
    ],
)
def test_refuses_members(bottle, root, tmp_path, capsys, name, kind, message):
    archive = pack(bottle.parent, tmp_path / "x.tar")
    tar_with(archive, name, kind)
    err = refused(capsys, archive, root)
    assert message in err and "x.tar" in err and ".import-" not in err


def test_refuses_names_that_differ_in_form_only(bottle, root, tmp_path, capsys):
    archive = pack(bottle.parent, tmp_path / "x.tar")
    for form in ("NFC", "NFD"):
        tar_with(archive, unicodedata.normalize(form, "bottle/test/cut/é.png"))
    assert "twice" in refused(capsys, archive, root)


# Mutated sources: imported, or refused in one line

COUNT = int(os.environ.get("ANOMALY_FUZZ", 1000)) // 25


def fuzz(capsys, root, source, seeds: list[bytes], target: Path) -> None:
    """Write mutations of `seeds` to `target`, and import `source` with each."""
    rng = random.Random(3)
    for i in range(COUNT):
        data = mutate(rng.choice(seeds), rng.choice(seeds), rng)
        target.write_bytes(data)
        status = run(source, root)
        out, err = capsys.readouterr()
        where = f"mutation {i}, {data[:2000]!r}: {err}"
        ended = status, err.count("\n"), bool(out)
        assert ended in ((0, 0, True), (2, 1, False)), where
        assert ".import-" not in err and "Errno" not in err, where
        assert root.exists() == (status == 0)
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("suffix", [".tar", ".zip", ".tar.gz", ".tar.xz"])
def test_mutated_archives(bottle, root, tmp_path, capsys, suffix):
    archive = tmp_path / f"x{suffix}"
    seeds = [pack(bottle.parent, archive).read_bytes()]
    shutil.rmtree(bottle / "test/cut")
    shutil.rmtree(bottle / "ground_truth/cut")
    seeds.append(pack(bottle.parent, archive).read_bytes())
    fuzz(capsys, root, archive, seeds, archive)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("part", ["test", "ground_truth"])
def test_mutated_images(bottle, root, capsys, part, suffix):
    name = "900_mask" if part == "ground_truth" else "900"
    write(bottle / "test/cut/900.png", np.zeros((12, 16), np.uint8))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    target = bottle / f"{part}/cut/{name}{suffix}"
    if part == "test":
        (bottle / "test/cut/900.png").unlink()
    seeds = [
        cv2.imencode(suffix, image)[1].tobytes() for image in (pixels, pixels[..., 0])
    ]
    fuzz(capsys, root, bottle, seeds, target)


# Whatever happens, all or nothing


@pytest.mark.parametrize(
    "step, archived",
    [(step, False) for step in ("read", "write_mask", "build")]
    + [(step, True) for step in ("extract", "read", "write_mask", "build")],
)
def test_ctrl_c_leaves_nothing(
    bottle, root, tmp_path, capsys, monkeypatch, step, archived
):
    make_category(bottle.parent / "cable", seed=1)
    source = pack(bottle.parent, tmp_path / "x.tar.xz") if archived else bottle.parent
    module, name = {
        "extract": (shutil, "copyfileobj"),
        "read": (layout, "read_image"),
        "build": (import_mvtec, "describe"),
        "write_mask": (install, "write_mask"),
    }[step]
    original, calls = getattr(module, name), []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(module, name, interrupted)
    assert run(source, root) == 130
    out, err = capsys.readouterr()
    assert err == "import_mvtec: interrupted, nothing was imported\n" and out == ""
    assert not root.exists()


def test_failure_while_installing_is_undone(bottle, root, capsys, monkeypatch):
    make_category(bottle.parent / "cable", seed=1)
    root.mkdir()
    (root / LABELS).write_text("{}")
    replace = os.replace

    def fails(source, target):
        if Path(target) == root / LABELS:
            raise PermissionError(13, "Permission denied", str(target))
        return replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    assert "Permission denied" in refused(capsys, bottle.parent, root)
    assert [p.name for p in root.iterdir()] == [LABELS]


# Real images


@pytest.mark.skipif(not REAL.is_dir(), reason="no real images beside the project")
def test_real_hazelnut_as_folder_and_archive(root, tmp_path):
    options = ("--train-bad", "4")
    assert run(REAL, root, *options) == 0
    assert len(list((root / "hazelnut/train/good").iterdir())) == 50
    bad = sorted(p.stem[4:] for p in (root / "hazelnut/train/bad").iterdir())
    assert bad == ["crack", "cut", "hole", "print"]
    labels = json.loads((root / LABELS).read_text())
    assert Counter(entry["label"] for entry in labels.values()) == {"good": 2, "bad": 4}
    masks = {p.stem for p in (root / "hazelnut/ground_truth").iterdir()}
    assert masks == {Path(k).stem for k, v in labels.items() if v["label"] == "bad"}
    for name in ("x.tar.gz", "x.zip"):
        assert run(pack(REAL, tmp_path / name), tmp_path / f"to {name}", *options) == 0
        assert tree(tmp_path / f"to {name}") == tree(root)
