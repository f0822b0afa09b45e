"""Nothing in silence: what others' data have done to others, one row each.

Every row is right, refused by name, or said; none gives a wrong result without a word.
"""

import io
import json
import struct
import sys
import unicodedata

import joblib
import numpy as np
import pytest
from PIL import Image
from samples import GREY, RGB, encode, label, refusal, saved, tree

import helpers as hp
import main
from anomaly import cache
from anomaly.cli import any_console
from anomaly.dataset import load_dataset
from anomaly.depth import brightest, full_scale
from anomaly.errors import InputError
from anomaly.images import list_images, read_image
from anomaly.labels import LABEL_FILE, check_masks, parse_labels, read_labels
from anomaly.masks import read_marked, read_mask
from anomaly.report.run import without_leftovers
from anomaly.settings import Settings

grey3 = np.repeat(GREY[..., None], 3, axis=2)
NFD = unicodedata.normalize("NFD", "prüf_é")
NFC = unicodedata.normalize("NFC", NFD)


def tiff(array, photometric=1, sample=1, planar=1, bits=None, tags=()):
    """A plain TIFF by hand, of kinds that no writer here makes; (H, W) or (H, W, C)."""
    array = np.atleast_3d(array)
    height, width, channels = array.shape
    planes = np.moveaxis(array, 2, 0) if planar == 2 else [array]
    strips = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    bits = bits or 8 * array.itemsize
    table = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [0] * len(strips)),
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [len(strip) for strip in strips]),
        284: (3, [planar]),
        339: (3, [sample] * channels),
    } | dict(tags)
    place = start = 8 + 2 + 12 * len(table) + 4

    def body():
        nonlocal place
        place, entries, more = start, b"", b""
        for tag, (kind, values) in sorted(table.items()):
            data = struct.pack(f"<{len(values)}{'HI'[kind - 3]}", *values)
            inline = data.ljust(4, b"\0")
            if len(data) > 4:
                inline, more = struct.pack("<I", place), more + data
                place += len(data)
            entries += struct.pack("<HHI", tag, kind, len(values)) + inline
        return (
            struct.pack("<2sHIH", b"II", 42, 8, len(table)) + entries + bytes(4) + more
        )

    body()
    ends = np.cumsum([0, *map(len, strips)])[:-1]
    table[273] = (4, [int(place + end) for end in ends])
    return body() + b"".join(strips)


# ---------------------------------------------------------------- the range of 16 bit


def white_of(tmp_path, *files):
    for i, data in enumerate(files):
        suffix = ".png" if data[:1] == b"\x89" else ".tif"
        (tmp_path / f"{i}{suffix}").write_bytes(data)
    return full_scale(sorted(tmp_path.iterdir()))


deep = GREY.astype(np.uint16)
colour = RGB.astype(np.uint16)
full = np.full(GREY.shape, 2**16 - 1, np.uint16)
alpha = np.dstack([full, colour << 4])  # as `encode` turns the channels round
P5 = b"P5 8 6 %d\n"
RANGES = {  # files, white, the first as it is read
    "8 bit": ([encode(GREY, ".png")], 65535, grey3),
    "8 bit in 16": ([encode(deep, ".png")], 255, grey3),
    "10 bit": ([encode(deep << 2, ".tif")], 1023, grey3),
    "12 bit": ([encode(deep << 4, ".png")], 4095, grey3),
    "14 bit": ([encode(deep << 6, ".tif")], 16383, grey3),
    "16 bit": ([encode(deep << 8, ".png")], 65535, grey3),
    "12 bit in colour, PNG": ([encode(colour << 4, ".png")], 4095, RGB),
    "12 bit in colour, TIFF": ([encode(colour << 4, ".tif")], 4095, RGB),
    "12 bit under alpha": ([encode(alpha, ".png")], 4095, RGB),
    "dark beside bright": (
        [encode(deep, ".png"), encode(deep << 4, ".png")],
        4095,
        grey3 >> 4,
    ),
    "by its tag": (
        [tiff(deep, tags={341: (3, [4095])})],
        4095,
        grey3 >> 4,
    ),
    "a tag that says nothing": ([tiff(deep, tags={341: (3, [65535])})], 255, grey3),
    "packed 12 bit": (
        [tiff(np.zeros((2, 3), np.uint8), bits=12, tags={256: (4, [2])})],
        4095,
        np.zeros((2, 2, 3)),
    ),
}


@pytest.mark.parametrize("name", RANGES)
def test_one_white_for_a_category(tmp_path, name):
    files, white, first = RANGES[name]
    assert white_of(tmp_path, *files) == white
    path = sorted(tmp_path.iterdir())[0]
    np.testing.assert_array_equal(read_image(path, full_scale=white), first)


def test_pgm_scales_by_its_own_maximum(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(P5 % 4095 + (deep << 4).astype(">u2").tobytes())
    assert np.abs(read_image(path)[..., 0].astype(int) - GREY).max() <= 1
    path.write_bytes(P5 % 65535 + (deep << 4).astype(">u2").tobytes())
    assert brightest(path) == int(GREY.max()) << 4
    np.testing.assert_array_equal(read_image(path, full_scale=4095), grey3)


def test_white_is_said_and_so_is_what_exceeds_it(tmp_path):
    root = tree(tmp_path)
    for path in (root / "c").rglob("*.png"):
        path.write_bytes(encode(deep << 4, ".png"))
    (root / "c/test/001.png").write_bytes(encode(deep << 8, ".png"))
    dataset = load_dataset(root, "c")
    said = "\n".join(dataset.remarks())
    assert "4095 is taken for white" in said
    assert "brighter than any normal image, cut off at white: 001.png" in said
    np.testing.assert_array_equal(dataset.read(dataset.test[0]), grey3)


def test_framing_keeps_white_for_new_images(tiny, tmp_path, tiny_settings):
    (tmp_path / "c/train/good").mkdir(parents=True)
    (tmp_path / "c/test").mkdir()
    paths = sorted((tiny / "hazelnut/train/good").iterdir())
    for i, path in enumerate(paths):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        data = encode(grey << 4, ".png")
        (tmp_path / f"c/train/good/{i}.png").write_bytes(data)
        (tmp_path / f"c/test/{i}.png").write_bytes(data)
    settings = tiny_settings(dataset_path=str(tmp_path), category="c")
    model, detection = hp.fit_model(settings), hp.detect(settings)
    assert model.framing.full_scale == 4095
    image = model.framing.read(tmp_path / "c/test/0.png")
    assert image.max() > 100
    assert model.score(image)[0] == pytest.approx(detection.test_scores[0], rel=1e-3)


# ------------------------------------------------------------------------- formats

REFUSED = {  # file, what is said
    "planar.tif": (tiff(colour * 257, 2, planar=2), "16-bit colour of a rare kind"),
    "white_is_zero.tif": (tiff(deep << 8, photometric=0), "with 0 for white"),
    "five.tif": (tiff(np.zeros((4, 5, 5), np.uint8), 2), "5 channels, 8 bit, unsigned"),
    "int16.tif": (tiff(deep.astype(np.int16), sample=2), "16 bit, signed"),
    "int8.tif": (tiff(GREY.view(np.int8), sample=2), "8 bit, signed"),
    "half.tif": (tiff(GREY.astype(np.float16), sample=3), "16 bit, float"),
    "gif.jpg": (saved(Image.fromarray(RGB), "GIF"), "GIF, whatever its name says"),
    "jp2.png": (saved(Image.fromarray(RGB), "JPEG2000"), "JPEG 2000"),
    "exr.png": (b"v/1\x01" + bytes(99), "OpenEXR"),
    "dicom.png": (bytes(128) + b"DICM" + bytes(99), "DICOM"),
    "array.png": (b"\x93NUMPY" + bytes(99), "a NumPy array"),
    "heic.jpg": (bytes(3) + b"\x18ftypheic" + bytes(99), "HEIC"),
    "avif.jpg": (bytes(3) + b"\x18ftypavif" + bytes(99), "AVIF"),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", "a web page"),
    "lfs.png": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "zeros.png": (bytes(5000), "zeros alone"),
    "empty.png": (b"", "is empty"),
    "clear.png": (
        saved(Image.fromarray(np.dstack([RGB, 0 * GREY])), "PNG"),
        "wholly transparent",
    ),
    "key16.png": (
        saved(Image.fromarray(deep), "PNG", transparency=7),
        "16 bit with a transparent colour",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_format_is_refused_by_its_true_name(tmp_path, name):
    data, said = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    assert said in refusal(read_image, tmp_path / name, names=name)


@pytest.mark.parametrize(
    "name, kind, options",
    [
        ("webp.jpg", "WEBP", {"lossless": True}),
        ("a.webp", "WEBP", {"lossless": True}),
        ("a.ppm", "PPM", {}),
        ("png.tif", "PNG", {}),
    ],
)
def test_what_pillow_reads_well_is_read(tmp_path, name, kind, options):
    (tmp_path / name).write_bytes(saved(Image.fromarray(RGB), kind, **options))
    np.testing.assert_array_equal(read_image(tmp_path / name), RGB)
    assert list_images(tmp_path) == [tmp_path / name]


FOREIGN = "tga dng cr2 nef raw exr npy dcm jxl jp2 gif heic avif svg psd hdr mp4 zip"


@pytest.mark.parametrize("name", ["no ending", *(f"a.{e}" for e in FOREIGN.split())])
def test_a_foreign_kind_is_never_skipped(tmp_path, name):
    root = tree(tmp_path)
    (root / "c/train/good" / name).write_bytes(b"x")
    said = refusal(load_dataset, root, "c", names=name)
    assert "convert it to PNG" in said


@pytest.mark.parametrize(
    "name",
    ["a.txt", "a.JSON", "a.csv", "a.md", "a.xml", "a.yaml", "a.html", "Thumbs.db"]
    + ["desktop.ini", ".DS_Store", "._000.png", "LICENSE", "README"],
)
def test_known_non_images_are_passed_over(tmp_path, name):
    root = tree(tmp_path)
    (root / "c/train/good" / name).write_bytes(b"x")
    assert len(load_dataset(root, "c").train_good) == 2


# --------------------------------------------------------------------------- masks

ids = np.zeros((64, 64), np.uint8)
ids[5:15, 5:15], ids[40:60, 40:60], ids[30, :9] = 1, 4, 3
scratch = np.zeros((64, 64), np.uint8)
scratch[20:23, 5:60] = 255
black = np.zeros((64, 64, 3), np.uint8)
voc = Image.fromarray(ids, "P")
voc.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128])
soft = np.minimum(np.add.outer(np.arange(64), np.arange(64)) * 2, 255).astype(np.uint8)
soft[:32] = 0
MASKS = {  # file, marked pixels, what is odd
    "class numbers": (encode(ids, ".png"), ids > 0, ""),
    "16 bit, 0 and 1": (encode(np.uint16(ids > 0), ".png"), ids > 0, ""),
    "16 bit, 0 and 255": (encode(np.uint16(ids > 0) * 255, ".tif"), ids > 0, ""),
    "16 bit, in colour": (
        encode(np.dstack([np.uint16(ids)] * 3), ".png"),
        ids > 0,
        "",
    ),
    "palette": (saved(voc, "PNG"), ids > 0, ""),
    "one bit": (saved(Image.fromarray(ids > 0), "PNG"), ids > 0, ""),
    "strokes on transparent ground": (
        saved(Image.fromarray(np.dstack([black + 255, scratch])), "PNG"),
        scratch > 0,
        "",
    ),
    "black strokes": (
        saved(Image.fromarray(np.dstack([black, scratch])), "PNG"),
        scratch > 0,
        "",
    ),
    "opaque alpha": (
        saved(
            Image.fromarray(np.dstack([black + scratch[..., None], ids | 255])), "PNG"
        ),
        scratch > 0,
        "",
    ),
    "in red": (
        encode(np.dstack([scratch, 0 * scratch, 0 * scratch]), ".png"),
        scratch > 0,
        "",
    ),
    "inverted": (encode(255 - scratch, ".png"), scratch == 0, "inverted?"),
    "soft": (encode(soft, ".png"), soft > 0, "soft edges"),
    "empty": (encode(0 * ids, ".png"), ids < 0, "empty"),
    "class number 255 for unknown": (
        encode(np.where(ids, np.uint8(255), ids), ".png"),
        ids > 0,
        "",
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_mark_what_their_author_meant(tmp_path, name):
    data, truth, said = MASKS[name]
    (tmp_path / "m.png").write_bytes(data)
    marked, odd = read_marked(tmp_path / "m.png")
    np.testing.assert_array_equal(marked, truth)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (64, 64)), truth)
    assert said in "".join(odd) and bool(odd) == bool(said)


@pytest.mark.parametrize("kind, quality", [("JPEG", 75), ("WEBP", 75), ("TIFF", 75)])
def test_ringing_of_a_lossy_mask_is_no_defect(tmp_path, kind, quality):
    options = {"compression": "jpeg"} if kind == "TIFF" else {}
    data = saved(Image.fromarray(scratch), kind, quality=quality, **options)
    (tmp_path / "m.jpg").write_bytes(data)
    marked = read_mask(tmp_path / "m.jpg", (64, 64))
    assert (marked != (scratch > 0)).mean() < 0.01


def test_what_is_odd_about_masks_is_a_problem(tmp_path):
    root = tree(tmp_path, ground_truth=0)
    mask = np.full((9, 9), 255, np.uint8)
    mask[0, 0] = 0
    (root / "c/ground_truth/001.png").write_bytes(encode(mask, ".png"))
    labels = label(root, {"c/test/001.png": {"label": "bad"}})
    (said,) = check_masks(load_dataset(root, "c"), labels)
    assert said == "masks that mark more than half of the picture (inverted?): 001.png"


# -------------------------------------------------------------------------- labels

CAUSES = {  # a label's key, and what is asked
    "Test/000.png": "by the name alone?",
    "C/Test/000.PNG": "in another case? 'C/Test/000.PNG' should be 'c/test/000.png'",
    "c/test/000.jpg": "with another ending?",
    "c/test/0.png": "with another number of zeros?",
    "c/test/ 000.png": "with blanks or %20?",
    "test/000.png": "without the category, or with another?",
    "c/000.png": "without the folder test?",
    "data/c/test/000.png": "below another folder?",
    "c/test/good/000.png": "by the name alone?",
    "000.png": "by the name alone?",
}


@pytest.mark.parametrize("key", CAUSES)
def test_keys_that_do_not_fit_are_explained(tmp_path, key):
    labels = label(tree(tmp_path), {key: {"label": "good"}})
    assert labels.is_bad.tolist() == [-1, -1]
    assert any(CAUSES[key] in problem for problem in labels.problems)


def test_labels_of_other_categories_alone_are_named(tmp_path):
    root = tree(tmp_path)
    (root / "d/test").mkdir(parents=True)
    labels = label(root, {"d/test/000.png": {"label": "good"}})
    assert labels.problems[-1] == "the label file has labels of d, not of these"


@pytest.mark.parametrize(
    "name", [LABEL_FILE + ".txt", "labels.json", "c/" + LABEL_FILE, "Labels.csv"]
)
def test_a_label_file_elsewhere_is_found(tmp_path, name):
    root = tree(tmp_path)
    (root / name).write_bytes(b"{}")
    (problem, _) = read_labels(load_dataset(root, "c")).problems
    assert f"not found; is it {root / name}? move or rename it" in problem


@pytest.mark.parametrize("value", ["Good", "OK", "NG", 0, 1, True, None, ["good"]])
def test_a_wrong_label_is_shown(tmp_path, value):
    path = tmp_path / LABEL_FILE
    path.write_text(json.dumps({"c/test/1.png": {"label": value}}))
    said = refusal(parse_labels, path, names='needs "label": "good" or "bad"')
    assert said.endswith(f"not {value!r}")


@pytest.mark.parametrize("key", ["/data/c/test/1.png", "C:\\c\\test\\1.png"])
def test_an_absolute_key_is_told_what_it_should_be(tmp_path, key):
    path = tmp_path / LABEL_FILE
    path.write_text(json.dumps({key: {"label": "good"}}))
    refusal(parse_labels, path, names="inside dataset_path: category/test/name")


def test_problems_are_said_in_the_first_second(tmp_path, capsys, monkeypatch):
    root = tree(tmp_path / "data")
    label(root, {"test/000.png": {"label": "good"}})

    def stop(_):
        raise InputError("stop")

    monkeypatch.setattr(main, "check_writable", stop)
    values = ["-p", "dataset_path", str(root), "-p", "visualization_dir", str(tmp_path)]
    assert main.main(values) == 2
    out = capsys.readouterr().out
    assert "c: image without a label: c/test/000.png, c/test/001.png" in out
    assert "c: label keys without the category, or with another?" in out


# --------------------------------------------------------------------------- names


def named(tmp_path, category, name):
    root = tree(tmp_path, ground_truth=0)
    for folder in ("test", "ground_truth"):
        (root / "c" / folder / f"{name}.png").write_bytes(encode(RGB, ".png"))
    for i in (0, 1):
        (root / f"c/test/00{i}.png").unlink()
    (root / "c").rename(root / category)
    return root


@pytest.mark.parametrize("on_disk, in_labels", [(NFD, NFC), (NFC, NFD), (NFD, NFD)])
def test_accents_are_the_same_however_they_are_written(tmp_path, on_disk, in_labels):
    root = named(tmp_path, on_disk, on_disk)
    entries = {f"{in_labels}/test/{in_labels}.png": {"label": "bad"}}
    (root / LABEL_FILE).write_text(json.dumps(entries))
    for typed in (NFC, NFD):
        labels = read_labels(load_dataset(root, typed))
        assert labels.is_bad.tolist() == [1] and not labels.problems
        assert labels.masks[0].exists()


def test_two_names_that_look_the_same_are_refused(tmp_path):
    root = tree(tmp_path)
    for name in (NFC, NFD):
        (root / f"c/test/{name}.png").write_bytes(encode(RGB, ".png"))
    refusal(load_dataset, root, "c", names="has the same stem")


@pytest.mark.parametrize("name, value", [("category", 7), ("layers", 3)])
def test_a_number_of_papermill_is_told_how_to_quote(name, value):
    refusal(lambda: Settings(**{name: value}), names=f"-r {name}")


# ------------------------------------------------------------------------- folders


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "__MACOSX", "lost+found"])
def test_folders_of_storage_are_passed_over(tmp_path, name):
    root = tree(tmp_path)
    for folder in ("c/train/good", "c/test", "c"):
        (root / folder / name).mkdir()
    dataset = load_dataset(root, "c")
    assert len(dataset.images) == 4 and not dataset.remarks()


def test_folders_by_date_are_told_what_to_do(tmp_path):
    root = tree(tmp_path)
    (root / "c/train/good/2024-05-01").mkdir()
    refusal(load_dataset, root, "c", names="move them up, each under a name of its own")


@pytest.mark.parametrize(
    "name", ["train/ok", "train/Bad", "masks", "GroundTruth", "val"]
)
def test_a_folder_that_is_not_used_is_named(tmp_path, name):
    root = tree(tmp_path)
    (root / "c" / name).mkdir()
    (said,) = load_dataset(root, "c").remarks()
    assert said == f"not used: {(root / 'c' / name).parent.name}/{name.split('/')[-1]}"


def test_images_beside_train_good_are_named(tmp_path):
    root = tree(tmp_path)
    (root / "c/train/000.png").write_bytes(encode(RGB, ".png"))
    assert load_dataset(root, "c").remarks() == ["not used: train/000.png"]


def repaint(root, image):
    for path in (root / "c").rglob("*.png"):
        path.write_bytes(encode(image, ".png"))


@pytest.mark.parametrize("value", [0, 99])
def test_images_that_all_show_the_same_are_refused(tmp_path, tiny_settings, value):
    root = tree(tmp_path)
    repaint(root, np.full((9, 9, 3), value, np.uint8))
    settings = tiny_settings(dataset_path=str(root), category="c")
    refusal(hp.detect, settings, names="train/good: all 2 images show the same")


@pytest.mark.parametrize("shape, said", [((8, 64, 3), "8:1"), ((24, 9, 3), "")])
def test_long_images_are_named(tmp_path, shape, said):
    root = tree(tmp_path)
    repaint(root, np.zeros(shape, np.uint8))
    assert said in "".join(load_dataset(root, "c").remarks())
    assert bool(said) == bool(load_dataset(root, "c").remarks())


def test_what_a_run_did_not_write_is_removed(tmp_path):
    def write(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")

    summary = "summary/performance_summary.png"
    old = ["heatmaps/heatmap_a.png", "heatmaps/heatmap_b.png", "heatmaps/mine.png"]
    write(summary, *old, "scored/heatmap_b.png")
    with without_leftovers(tmp_path, ["a"]):
        write(summary)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png")}
    assert left == {summary, old[0], old[2], "scored/heatmap_b.png"}
    with without_leftovers(tmp_path, ["a"]):
        pass
    assert not (tmp_path / summary).exists() and (tmp_path / old[0]).exists()


# -------------------------------------------------------------------- environments


def test_a_console_of_cp1252_takes_every_name(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "cp1252"))
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    any_console()
    print("榛子", flush=True)
    assert raw.getvalue().strip() == rb"\u699b\u5b50"


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied"), OSError(5, "EIO"), MemoryError()],
)
def test_a_cache_file_that_cannot_be_read_is_not_damage(
    cold_cache, capsys, monkeypatch, error
):
    assert cache.kept("a", {}, lambda: 1) == 1
    before = {p: p.read_bytes() for p in cold_cache.iterdir()}

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(joblib, "load", fail)
    assert cache.kept("a", {}, lambda: 2) == 2
    assert "cannot be read" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in cold_cache.iterdir()} == before
