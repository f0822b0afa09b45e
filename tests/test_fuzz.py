"""Mutated image and label files: a result or a one-line InputError, nothing else.

`ANOMALY_FUZZ=5000 pytest tests/test_fuzz.py -s` sets the number of mutations.
"""

import io
import json
import os
import random
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from anomaly.dataset import load_dataset
from anomaly.errors import InputError
from anomaly.images import MAX_PIXELS, read_image
from anomaly.labels import LABEL_FILE, read_labels

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
    ]
    seeds: dict[str, list[bytes]] = {}
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        seeds.setdefault(kind.replace("MPO", "JPEG"), []).append(buffer.getvalue())
    return seeds


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
