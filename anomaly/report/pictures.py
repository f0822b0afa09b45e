"""Pictures: uint8 RGB arrays, composed by OpenCV in milliseconds.

OpenCV's own letters have neither Chinese nor a zero that can be told from an 8: what
is written in a picture, Pillow writes.
"""

from functools import cache

import cv2
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from anomaly.report.style import cjk_font


def written(picture, texts, size=13, lang="en") -> np.ndarray:
    """The RGB picture with texts [(x, y, text)] in black; x, y: their upper left."""
    name = cjk_font()[1] if lang == "zh" else font_manager.findfont("DejaVu Sans")
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for x, y, text in texts:
        draw.text((x, y), text, "black", _font(name, size))
    return np.array(image)


_font = cache(ImageFont.truetype)


def stretch(values) -> np.ndarray:
    """A map (h, w) of any range as a grey RGB picture (h, w, 3), black to white."""
    low, high = np.min(values), np.max(values)
    grey = np.uint8(255 * (values - low) / max(high - low, 1e-12))
    return np.repeat(grey[..., None], 3, axis=2)


def sample_grid(images, columns=6, size=128, gap=4) -> np.ndarray:
    """RGB images of any size as a grid of squares, row by row."""
    rows, cell = -(-len(images) // columns), size + gap
    grid = np.full((rows * cell - gap, columns * cell - gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        y, x = index // columns * cell, index % columns * cell
        method = cv2.INTER_AREA if min(image.shape[:2]) > size else cv2.INTER_NEAREST
        square = cv2.resize(image, (size, size), interpolation=method)
        grid[y : y + size, x : x + size] = square
    return grid


def level(values, scale) -> np.ndarray:
    """Values on a colour scale (low, high) as levels, from 0 to nearly 1.

    Linear up to the middle of the scale, and from there on ever slower, so that of two
    strong defects the stronger still has a peak: low, middle and high become 0, 1/2
    and 3/4.
    """
    low, high = scale
    u = np.maximum(values - low, 0) / max((high - low) / 2, 1e-12)
    return np.where(u < 1, u / 2, 1 - 0.5 / np.maximum(u, 1))


def colour(values, scale, colormap="jet") -> np.ndarray:
    """Values (h, w) on a colour scale (low, high) as an RGB picture (h, w, 3)."""
    return shaded(level(values, scale), colormap)


def shaded(level, colormap="jet") -> np.ndarray:
    """Levels (h, w) from 0 to 1 as an RGB picture (h, w, 3)."""
    table = getattr(cv2, f"COLORMAP_{colormap.upper()}")
    bgr = cv2.applyColorMap(np.uint8(np.rint(255 * level)), table)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def heatmap_panel(
    image,
    anomaly_map,
    scale,
    colormap="jet",
    mask=None,
    alpha=0.5,
    per_image=False,
    height=None,
    contour=None,
) -> np.ndarray:
    """Original | heat map | overlay | colour bar, as one RGB picture.

    image (H, W, 3) uint8 RGB; anomaly_map (h, w); scale: (low, high), cf. `map_scale`
    in `anomaly.scores`, or the map's own range if `per_image`. The panel is `height`
    pixels high, the map's h by default, and keeps the image's shape. The outline of
    `mask` (bool) is drawn, and dashed that of the map above the value `contour`.
    """
    height = height or len(anomaly_map)
    ratio = np.clip(image.shape[1] / image.shape[0], 0.25, 4)
    size = (max(round(height * ratio), 1), height)
    low, high = (anomaly_map.min(), anomaly_map.max()) if per_image else scale
    values = cv2.resize(anomaly_map, size)
    heat = colour(values, (low, high), colormap)
    original = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    overlay = cv2.addWeighted(original, 1 - alpha, heat, alpha, 0)
    if mask is not None:
        small = cv2.resize(np.uint8(mask), size, interpolation=cv2.INTER_NEAREST)
        small = cv2.dilate(small, np.ones((7, 7), np.uint8))  # clear of the defect
        outline, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for picture in (original, overlay):
            cv2.drawContours(picture, outline, -1, (0, 0, 0), 3)
            cv2.drawContours(picture, outline, -1, (255, 255, 255), 1)
    if contour is not None:
        for picture in (original, overlay):
            _dashed(picture, values > contour)
    unit = max(height / 256, 0.85)
    bar = np.full((height, round(66 * unit) + 1, 3), 255, np.uint8)
    ramp = np.linspace(1, 0, height)[:, None]
    bar[:, : round(16 * unit)] = shaded(ramp, colormap)
    numbers = []
    for value in (low, (low + high) / 2, high):
        y = round(height * (0.965 - 0.93 * level(value, (low, high))) - 8 * unit)
        numbers.append((round(21 * unit), y, f"{value:.3g}"))
    bar = written(bar, numbers, size=round(13 * unit))
    gap = np.full((height, 4, 3), 255, np.uint8)
    return np.hstack([original, gap, heat, gap, overlay, gap, bar])


def _dashed(picture, found):
    """Outline `found` (H, W) in place, black and white by turns: seen on any colour."""
    outlines, _ = cv2.findContours(
        np.uint8(found), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    dash = max(len(picture) // 40, 3)
    for outline in outlines:
        x, y = outline.reshape(-1, 2).T
        tone = np.uint8(255 * (np.arange(len(x)) // dash % 2))[:, None]
        for down, right in ((1, 1), (0, 1), (1, 0), (0, 0)):  # two pixels wide
            rows = np.minimum(y + down, len(picture) - 1)
            picture[rows, np.minimum(x + right, picture.shape[1] - 1)] = tone


def gallery(panels, gap=6) -> np.ndarray:
    """Panels (RGB) one below the other, lettered a, b, c …"""
    width, rows = max(panel.shape[1] for panel in panels), []
    for index, panel in enumerate(panels):
        row = np.full((len(panel) + gap, width, 3), 255, np.uint8)
        row[gap:, : panel.shape[1]] = panel
        row[gap : gap + 22, :20] = 255
        rows.append(written(row, [(5, gap + 1, chr(97 + index))], size=15))
    return np.vstack(rows)[gap:]
