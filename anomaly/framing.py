"""Place and light: an image of another day is brought into the normal range.

On another day the lamp is weaker, and somebody has touched the camera. An image whose
light or place lies outside the range of the normal images is brought back into it;
one inside stays as it is. No pixel is invented: each image is read with a margin, in
which the window that the network sees can move. With a region of interest (cf. `roi`)
place and light are those of the region, and what lies outside of it is covered by the
template: a lamp or a label there changes nothing.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from anomaly.depth import FULL_SCALE
from anomaly.images import read_image, resized, to_grey
from anomaly.roi import share_inside

MARGIN = 1 / 36  # on each side, in units of the window's


@dataclass(frozen=True)
class Framing:
    """Place and light of the normal images. See `fit_framing`."""

    size: int  # side of the window, pixels
    template: np.ndarray  # uint8, mean grey image with its margins
    seen: np.ndarray  # (N, 4) place (x, y) in pixels and light (dark, bright) of each
    full_scale: int = FULL_SCALE  # white of 16-bit files, cf. `depth`
    region: np.ndarray | None = None  # bool, where in the template images count

    @cached_property
    def place(self):
        """(2, 2) pixels: lowest and highest (x, y), the quartiles."""
        return np.percentile(self.seen[:, :2], [25, 75], axis=0)

    @cached_property
    def light(self):
        """(2, 2) grey values: lowest and highest (dark, bright)."""
        return np.array([self.seen[:, 2:].min(axis=0), self.seen[:, 2:].max(axis=0)])

    @cached_property
    def inside(self):
        """The region in the window where it usually is: (size, size) bool, or None."""
        return None if self.region is None else self.region[_inner(self.size)]

    @property
    def cover(self):
        """What stands outside of the region: (size, size, 1) uint8."""
        return self.template[_inner(self.size)][..., None]

    def read(self, source, size=None, at_least=None):
        """The image (H, W, 3) of a path, or the image that it is already.

        size and at_least as in `read_image`.
        """
        if isinstance(source, Path):
            return read_image(source, size, self.full_scale, at_least=at_least)
        return source

    def read_small(self, source):
        """`read`, no larger than `apply` needs it."""
        return self.read(source, with_margin(self.size))

    def apply(self, image):
        """What the network sees of an image (H, W, 3): (size, size, 3) uint8.

        And where that was: (left, top, width, height) as shares of the image's sides.
        """
        return self.look(image)[:2]

    def look(self, image):
        """`apply`, and the image's own place and light (4,), cf. `seen`."""
        image, margin = resized(image, with_margin(self.size)), _margin(self.size)
        place = _place(to_grey(image), self.template, margin, self.region)
        move = np.rint(place - np.clip(place, *self.place)).clip(-margin, margin)
        x, y = margin + move.astype(int)
        window = image[y : y + self.size, x : x + self.size]
        light = _light(to_grey(window), self.inside)
        wanted = np.clip(light, *self.light)
        if (wanted != light).any():
            gain = np.ptp(wanted) / max(np.ptp(light), 1)
            levels = (np.arange(256) - light[0]) * gain + wanted[0]
            window = cv2.LUT(window, np.uint8(np.rint(levels.clip(0, 255))))
        if self.region is not None:
            window = np.where(self.inside[..., None], window, self.cover)
        where = np.array([x, y, self.size, self.size]) / len(image)
        return window, where, np.concatenate([place, light])


def fit_framing(images, size, full_scale=FULL_SCALE, roi=None):
    """`Framing` of normal images, each of them (size and margins, the same, 3).

    A product without a usual place has a wide range, and nothing is moved. `roi` is the
    path of a region of interest; one that is all of the image is none.
    """
    region = None if roi is None else share_inside(roi, with_margin(size)) >= 0.5
    region = None if region is None or region.all() else region
    greys = [to_grey(image) for image in images]
    template, margin = np.uint8(np.rint(np.mean(greys, axis=0))), _margin(size)
    inner = _inner(size)
    inside = None if region is None else region[inner]
    places = [_place(grey, template, margin, region) for grey in greys]
    lights = [_light(grey[inner], inside) for grey in greys]
    seen = np.hstack([places, lights])
    return Framing(size, template, seen, full_scale, region)


def _margin(size):
    return max(1, round(MARGIN * size))


def _inner(size):
    """The window where it usually is, in an image with its margins."""
    return (slice(_margin(size), -_margin(size)),) * 2


def with_margin(size):
    return (size + 2 * _margin(size),) * 2


def _place(grey, template, margin, region=None):
    """Pixels (x, y) by which the product lies right of and below the template's.

    By normalised cross-correlation, up to twice the margin.
    """
    reach = 2 * margin
    inner, mask = (
        x if x is None else x[reach:-reach, reach:-reach] for x in (template, region)
    )
    if mask is not None and (not mask.any() or inner[mask].std() < 1):
        return np.zeros(2)  # OpenCV divides by what is zero
    mask = mask if mask is None else np.uint8(mask)
    match = cv2.matchTemplate(grey, inner, cv2.TM_CCOEFF_NORMED, mask=mask)
    if mask is not None:
        match[~(np.abs(match) <= 1.01)] = 0
    y, x = np.unravel_index(match.argmax(), match.shape)
    if match[y, x] < match[reach, reach] + 1e-3:  # as good where it is: flat images
        return np.zeros(2)
    return np.array([x - reach, y - reach])


def _light(grey, inside=None):
    """Grey values (2,) that 1 % and 99 % of the pixels do not exceed."""
    grey = grey.ravel() if inside is None else grey[inside]
    counts = np.bincount(grey, minlength=256).cumsum()
    return np.searchsorted(counts, np.array([0.01, 0.99]) * counts[-1]).astype(float)
