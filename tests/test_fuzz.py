"""Mutated images, masks, labels, settings: a result or a one-line InputError.

`ANOMALY_FUZZ=5000 pytest tests/test_fuzz.py -s` sets the number of mutations.
"""

import io
import json
import os
import random
import time
import zlib
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image
from samples import encode, saved

from anomaly.cli import typed
from anomaly.dataset import load_dataset
from anomaly.errors import InputError
from anomaly.images import MAX_PIXELS, read_image
from anomaly.labels import LABEL_FILE, read_labels
from anomaly.masks import read_mask
from anomaly.settings import Settings

COUNT = int(os.environ.get("ANOMALY_FUZZ", 1000))
SLOWEST = 20.0  # seconds; a mutation that takes longer counts as a hang


def image_seeds() -> dict[str, list[bytes]]:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    grey16 = Image.fromarray(rng.integers(0, 2**16, (24, 32), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        (rgb, "PNG", {"exif": exif}),
        (rgb.convert("L"), "PNG", {}),
        (rgb.convert("RGBA"), "PNG", {}),
        (rgb.quantize(16), "PNG", {"transparency": 3}),
        (grey16, "PNG", {}),
        (rgb, "PNG", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb, "JPEG", {"exif": exif}),
        (rgb, "JPEG", {"progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "MPO", {"save_all": True, "append_images": [rgb]}),
        (rgb, "BMP", {}),
        (rgb.quantize(16), "BMP", {}),
        (rgb, "TIFF", {}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (grey16, "TIFF", {"compression": "packbits"}),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb, "WEBP", {"lossless": True}),
        (rgb.convert("RGBA"), "WEBP", {"quality": 50}),
        (rgb, "PPM", {}),
        (grey16, "PPM", {}),
        (rgb.convert("1"), "PPM", {}),
    ]
    seeds: dict[str, list[bytes]] = {}
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        seeds.setdefault(kind.replace("MPO", "JPEG"), []).append(buffer.getvalue())
    for suffix, kind in ((".png", "PNG"), (".tif", "TIFF"), (".ppm", "PPM")):
        for channels in (3, 4)[: 1 + (suffix == ".png")]:
            colour = rng.integers(0, 4096, (24, 32, channels), dtype=np.uint16)
            seeds[kind].append(encode(colour, suffix))
    return seeds


def mask_seeds() -> list[bytes]:
    ids = np.zeros((24, 32), np.uint8)
    ids[4:9, 5:20], ids[15:, 7:9] = 1, 4
    palette = Image.fromarray(ids, "P")
    palette.putpalette(list(range(48)))
    strokes = Image.fromarray(np.dstack([ids * 0, ids * 0, ids * 0, ids * 60]))
    kinds = [(Image.fromarray(ids), "PNG"), (palette, "PNG"), (strokes, "PNG")]
    kinds += [(Image.fromarray(np.uint16(ids)), kind) for kind in ("PNG", "TIFF")]
    kinds += [(Image.fromarray(ids * 60), kind) for kind in ("JPEG", "WEBP", "BMP")]
    return [saved(image, kind) for image, kind in kinds]


LABEL_SEEDS = [
    json.dumps(
        {
            "c/test/000.png": {"original_category": "c", "label": "good"},
            "c\\test\\001.png": {"label": "bad", "defect": "裂缝"},
            "d/test/1.png": {"label": "good", "defect": None},
        },
        ensure_ascii=escape,
    ).encode(encoding)
    for escape, encoding in ((True, "utf-8"), (False, "utf-8-sig"))
]
TOKENS = [b'"', b"{", b"}", b"[" * 3000, b"null", b"../", b"\\u0000", b"\\ud800"]
TOKENS += [b"1e999", b"NaN", b"bad", b"\xff", b"\n", b"/", b'"label"', b'"defect"']
TOKENS += [b" ", b"x", b", ", "图".encode()]


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Flip bits, overwrite, cut, repeat or splice, up to four times."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        near = rng.choice([64, max(1, len(result))])  # headers are hit more often
        at = rng.randrange(min(near, max(1, len(result))))
        match rng.randrange(7):
            case 0 if result:
                result[at] ^= 1 << rng.randrange(8)
            case 1 if result:
                extreme = rng.choice([b"\0", b"\xff", b"\x7f", b"\x80", b"\1"])
                width = rng.choice([1, 2, 4])
                result[at : at + width] = extreme * width
            case 2:
                del result[at:]
            case 3:
                del result[at : at + rng.randint(1, 30)]
            case 4:
                result[at:at] = result[at : at + rng.randint(1, 200)]
            case 5:
                result[at:] = other[rng.randrange(len(other)) :]
            case 6:
                result[at:at] = rng.choice(TOKENS)
    return png_checksums(result) if rng.random() < 0.5 else bytes(result)


def png_checksums(data: bytearray) -> bytes:
    """Make the chunks' checksums right again, so that the decoder sees the damage."""
    at = 8
    while data[:4] == b"\x89PNG" and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 <= len(data):
            data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


def run(seeds: list[bytes], count: int, seed: int, use) -> str:
    """Call `use` on mutations; returns a summary, fails on the first violation."""
    rng = random.Random(seed)
    refused, slowest, start = 0, 0.0, time.perf_counter()
    for i in range(count):
        data = mutate(rng.choice(seeds), rng.choice(seeds), rng)
        began = time.perf_counter()
        try:
            use(data)
        except InputError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1, f"mutation {i}: {error}"
            str(error).encode()
        except Exception as error:
            pytest.fail(f"mutation {i}: {error!r} on {data[:2000]!r}")
        slowest = max(slowest, time.perf_counter() - began)
        assert slowest < SLOWEST, f"mutation {i} took {slowest:.0f} s"
    seconds = time.perf_counter() - start
    return f"{count} mutations, {refused} refused, {seconds:.1f} s, max {slowest:.2f} s"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind, seeds", image_seeds().items())
def test_mutated_images(tmp_path, capfd, kind, seeds):
    path = tmp_path / "图 a.png"

    def use(data):
        path.write_bytes(data)
        image = read_image(path)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS
        assert read_image(path, (8, 8)).shape == (8, 8, 3)

    summary = run(seeds, COUNT // 4, 1, use)
    noise = capfd.readouterr().err
    assert noise == "" or kind == "TIFF"  # libtiff cannot be kept quiet
    print(f"{kind}: {summary}")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_masks(tmp_path):
    path = tmp_path / "遮罩.png"

    def use(data):
        path.write_bytes(data)
        mask = read_mask(path, (24, 32))
        assert mask.dtype == bool and mask.shape == (24, 32)

    print("masks:", run(mask_seeds(), COUNT, 3, use))


TEXTS = ["", "x", "0", "007", "nan", "-inf", "1e999", "max", "auto", "none", "/", " 1"]
TEXTS += ["../..", "a\0b", "\ud800", "榛子", "3,layer2", "0.5", "-1", "true", "9" * 400]
VALUES = [0, 1, 7, -1, 2**40, 0.5, -0.0, 1e300, float("nan"), float("inf"), True]
VALUES += [None, [], {}, b"x", 1j, np.float32(0.5), np.int64(64), *TEXTS]


def test_mutated_settings():
    names, rng = [field.name for field in fields(Settings)], random.Random(4)
    for i in range(COUNT):
        some = rng.sample(names, rng.randint(1, 3))
        pairs = [(name, rng.choice(TEXTS)) for name in some]  # of a command line
        values = {name: rng.choice(VALUES) for name in some}  # of a notebook
        try:
            settings = Settings(**typed(pairs) if i % 2 else values)
            assert settings.output and settings.data and settings.network
        except InputError as error:
            assert len(str(error).splitlines()) == 1, f"mutation {i}: {error}"
            str(error).encode()
        except Exception as error:
            pytest.fail(f"mutation {i}: {error!r} on {pairs if i % 2 else values!r}")


def test_mutated_labels(tmp_path):
    for folder in ("train/good", "test"):
        (tmp_path / "c" / folder).mkdir(parents=True)
        for name in ("000.png", "001.png"):
            (tmp_path / "c" / folder / name).write_bytes(b"not opened here")
    dataset = load_dataset(tmp_path, "c")

    def use(data):
        (tmp_path / LABEL_FILE).write_bytes(data)
        labels = read_labels(dataset)
        assert labels.is_bad.shape == (2,) and set(labels.is_bad) <= {-1, 0, 1}
        assert len(labels.defect) == len(labels.masks) == 2
        for line in labels.problems + labels.defect:
            assert len(line.splitlines()) <= 1
            line.encode()

    print("labels:", run(LABEL_SEEDS, COUNT, 2, use))
