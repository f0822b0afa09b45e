"""Images of every kind: exact, or refused by name."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import GREY, RGB, RNG, encode, noise, refusal, saved

from anomaly.errors import InputError
from anomaly.images import image_shape, read_image, resized
from anomaly.masks import read_mask


def png_chunk(name: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(name + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + name + data + crc


def png_start(width: int, height: int) -> bytes:
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = png_chunk(b"IHDR", size + b"\x08\x00\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(99)))


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
    image = read_image(tmp_path / name)
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
    result = read_image(tmp_path / "a.jpeg")
    assert np.abs(result.astype(int) - expected).max() <= 6


def test_read_image_takes_the_photo_of_a_jpeg_with_preview(tmp_path):
    photo, preview = Image.fromarray(RGB), Image.new("RGB", (4, 4))
    data = saved(photo, "MPO", save_all=True, append_images=[preview])
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_image(tmp_path / "a.jpg").shape == RGB.shape


frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
flipped = bytearray(encode(noise, ".png"))
flipped[len(flipped) // 2] ^= 4
bmp = encode(RGB, ".bmp")
UNREADABLE = {
    "empty.png": (b"", "is empty; copy it again"),
    "text.png": (b"no image at all\n" * 9, "truncated"),
    "cut.png": (encode(noise, ".png")[:-20], "truncated"),
    "cut_in_half.png": (encode(noise, ".png")[:6000], "truncated"),
    "cut.jpg": (encode(noise, ".jpg")[:-40], "truncated"),
    "cut.bmp": (encode(noise, ".bmp")[:-40], "truncated"),
    "cut.tif": (encode(noise, ".tif")[:-40], "truncated"),
    "bit_flipped.png": (bytes(flipped), "damaged"),
    "gif.png": (saved(frames[0], "GIF"), "GIF, whatever its name says; convert"),
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
    assert reason in refusal(read_image, tmp_path / name, names=name)


def test_read_image_refuses_what_is_no_file(tmp_path):
    assert "No such file" in refusal(read_image, tmp_path / "a.png", names="a.png")
    refusal(read_image, tmp_path, names=str(tmp_path))
    refusal(read_image, tmp_path / "a\0\n.png", names=r"a\x00\n.png")


@pytest.mark.parametrize("size", [(3, 4), (12, 16), (1, 40), (6, 8)])
def test_read_image_resizes_to_height_and_width(tmp_path, size):
    path = tmp_path / "a.png"
    path.write_bytes(encode(np.full((6, 8, 3), 77, np.uint8), ".png"))
    np.testing.assert_array_equal(read_image(path, size), np.full((*size, 3), 77))


def test_read_image_averages_when_it_shrinks(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(noise, ".png"))
    means = noise.reshape(8, 8, 4, 16, 3).mean(axis=(1, 3))
    result = read_image(tmp_path / "a.png", (8, 4))
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
    np.testing.assert_array_equal(read_image(path), expected)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200), st.sampled_from([b"", b"BM", png_start(4, 4)]))
def test_arbitrary_bytes_are_an_image_or_refused(tmp_path_factory, data, start):
    path = tmp_path_factory.mktemp("image") / "a.png"
    path.write_bytes(start + data)
    try:
        assert read_image(path).shape[2] == 3
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and "a.png" in str(error)


@pytest.mark.parametrize("high", [1, 255])
def test_read_mask(tmp_path, high):
    truth = RNG.random((9, 9)) > 0.5
    (tmp_path / "m.png").write_bytes(encode(np.uint8(high) * truth, ".png"))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (9, 9)), truth)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_the_header_tells_the_shape_that_is_read(tmp_path, kind, turn):
    path, exif = tmp_path / "image.png", Image.Exif()
    exif[0x0112] = turn
    more = {} if kind == "BMP" else {"exif": exif}
    path.write_bytes(saved(Image.fromarray(np.zeros((30, 50, 3), "u1")), kind, **more))
    assert image_shape(path) == read_image(path).shape[:2]
    assert image_shape(path) == ((50, 30) if turn > 5 and more else (30, 50))


def test_the_header_of_what_is_no_image_is_refused(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"no image")
    refusal(image_shape, path, names="image.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("turn", [1, 6])
def test_at_most_so_many_pixels_are_kept(tmp_path, kind, turn):
    """A JPEG of 3200 x 2400 is decoded at a quarter, and looks the same."""
    y, x = np.mgrid[:2400, :3200]
    photo = np.stack([x // 13, y // 10, (x + y) // 23], 2).astype(np.uint8)
    path, exif = tmp_path / "photo", Image.Exif()
    exif[0x0112] = turn
    path.write_bytes(saved(Image.fromarray(photo), kind, exif=exif, quality=95))
    whole, small = read_image(path), read_image(path, at_most=320)
    assert small.shape == ((240, 320, 3) if turn == 1 else (320, 240, 3))
    expected = resized(whole, small.shape[:2]).astype(int)
    assert np.abs(small - expected).max() <= (3 if kind == "JPEG" else 0)
    square = read_image(path, (272, 272)).astype(int)
    assert np.abs(square - resized(whole, (272, 272))).max() <= 3
    assert np.array_equal(read_image(path, at_most=5000), whole)
    assert read_image(path, at_most=1).shape == (1, 1, 3)
    enough = read_image(path, at_least=(80, 80))
    assert np.array_equal(resized(enough, (80, 80)), read_image(path, (80, 80)))
    assert (enough.shape == whole.shape) == (kind == "PNG")
