"""From a decoded frame to RGB of size x size: upright, with square pixels, in standard dynamic range.

Resizing is Pillow's bicubic, whose filter widens as a picture shrinks, so that nothing aliases: the short side to `size`, then
the middle. It is what CLIP's towers were trained behind and what CLIP4Clip and CLIP2Video did to each frame. Only the part of
a frame that is kept is computed; Pillow may then take rows before columns, and rounds otherwise: 0.2 levels in the mean on
portrait frames, none to speak of on others. (STAN's mmcv resizes bilinearly, and aliases; that is not repeated here.)
Towers that were trained behind something else (SigLIP, DFN: squashed; MobileCLIP: bilinear) get that, as open_clip does it.
What is drawn in training is cut from the frame itself, and brought to size likewise.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from stillreel.configs.video import VideoOptions
from stillreel.pretrain.video.crop import DrawnCrop
from stillreel.pretrain.video.hdr import TRANSFERS, to_sdr

Pixels = NDArray[np.uint8]

# A picture that is wider or taller than this because of its pixels' shape is a wrong header, not an anamorphic film.
_MAX_STRETCH = 4

_BICUBIC = Image.Resampling.BICUBIC
_FILTERS = {"bicubic": _BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Fit(NamedTuple):
    """How a frame becomes a square: by which side it is scaled, and the filter; open_clip's `resize_mode` and `interpolation`."""

    side: Literal["shortest", "squash", "longest"] = "shortest"
    filter: Literal["bicubic", "bilinear"] = "bicubic"

    @classmethod
    def asked(cls, settings: VideoOptions) -> Fit:
        return cls(settings.resize, settings.interpolation)


# Display matrices of frames that are turned counterclockwise, by quarters.
_QUARTER_TURNS = np.array([[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]], np.int64)


class FrameShaper:
    """Brings frames of one video to size x size; keeps the color converter that they share."""

    def __init__(
        self,
        size: int,
        sample_aspect: Fraction | None,
        place: float = 0.5,
        crop: DrawnCrop | None = None,
        fit: Fit = Fit(),  # noqa: B008  (nothing can change it)
    ) -> None:
        """`sample_aspect`: width / height of a pixel; None for square ones, or to leave them as they are stored. `place`:
        where along the longer side the square lies, from 0, its start, to 1, its end; a `crop` is shown in its stead."""
        self._size = size
        self._place = place
        self._crop = crop
        self._fit = fit
        stretch = sample_aspect or Fraction(1)
        self._stretch = float(stretch) if 1 <= max(stretch, 1 / stretch) <= _MAX_STRETCH else 1.0
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> Pixels:
        """uint8 (size, size, 3) of an av.VideoFrame."""
        pixels, stretch = self._upright(frame)
        if self._crop is None:
            return _in_sdr(fitted(pixels, self._size, self._fit, self._place, stretch), frame)
        return _in_sdr(cropped(pixels, self._size, self._crop, stretch), frame)

    def whole(self, frame: Any) -> Pixels:
        """uint8 (H, W, 3), whose short side is `size`, of all that an av.VideoFrame shows. Its `square` is what a call gives, to
        rounding."""
        pixels, stretch = self._upright(frame)
        full = _by_short_side(pixels, self._size, stretch)
        return _in_sdr(np.asarray(Image.fromarray(pixels).resize(full, _FILTERS[self._fit.filter])), frame)

    def _upright(self, frame: Any) -> tuple[Pixels, float]:
        """All pixels of the frame as a player turns them, and how much wider than high one of them is."""
        # Matrix and range of the colors are those that the stream tells; without a word BT.601 and limited, as in FFmpeg.
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return turned(np.asarray(rgb, np.uint8), self._stretch, display_matrix(frame))


def fitted(pixels: Pixels, size: int, fit: Fit, place: float = 0.5, stretch: float = 1.0) -> Pixels:
    """A whole frame (H, W, 3) as a square (size, size, 3): of one whose short side is scaled the part at `place`. `stretch`: how
    much wider than high a pixel is."""
    height, width = pixels.shape[:2]
    picture, by = Image.fromarray(pixels), _FILTERS[fit.filter]
    if fit.side == "squash":
        return np.asarray(picture.resize((size, size), by))
    if fit.side == "longest":
        longest = max(width * stretch, height)
        sides = [max(round(size * side / longest), 1) for side in (width * stretch, height)]
        left, top = ((size - side) // 2 for side in sides)
        square = np.zeros((size, size, 3), np.uint8)
        square[top : top + sides[1], left : left + sides[0]] = np.asarray(picture.resize((sides[0], sides[1]), by))
        return square
    full = _by_short_side(pixels, size, stretch)
    corner = corner_of(full, size, place)
    scale = (width / full[0], height / full[1])
    begin, above = (at * one for at, one in zip(corner, scale, strict=True))
    right = min((corner[0] + size) * scale[0], width)
    bottom = min((corner[1] + size) * scale[1], height)
    return np.asarray(picture.resize((size, size), by, (begin, above, right, bottom)))


def _by_short_side(pixels: Pixels, size: int, stretch: float) -> tuple[int, int]:
    """Width and height of a frame once its short side is `size`."""
    shown = (pixels.shape[1] * stretch, float(pixels.shape[0]))
    width, height = (max(size, int(size * side / min(shown))) for side in shown)
    return width, height


def square(pixels: Pixels, size: int, place: float) -> Pixels:
    """The part (size, size, 3) of a whole frame, `place` along its longer side."""
    left, top = corner_of((pixels.shape[1], pixels.shape[0]), size, place)
    return pixels[top : top + size, left : left + size]


def cropped(pixels: Pixels, size: int, crop: DrawnCrop, stretch: float = 1.0) -> Pixels:
    """What is drawn of a whole frame, brought to (size, size, 3). `stretch`: how much wider than high a pixel is."""
    height, width = pixels.shape[:2]
    box = crop.part(width * stretch, height).box(width, height)
    return np.asarray(Image.fromarray(pixels).resize((size, size), _BICUBIC, box))


def corner_of(full: tuple[int, int], size: int, place: float) -> tuple[int, int]:
    """Left and top of that part, of a frame of this width and height."""
    left, top = (round((side - size) * place) for side in full)
    return left, top


def _in_sdr(pixels: Pixels, frame: Any) -> Pixels:
    return to_sdr(pixels, TRANSFERS[frame.color_trc]) if frame.color_trc in TRANSFERS else pixels


def display_matrix(frame: Any) -> NDArray[np.int64]:
    """The linear part (2, 2) of how a player places a frame: (x, y) is shown in the direction (x, y) @ matrix."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows not every kind of side data that FFmpeg has; without its list mirroring is lost
        return np.asarray(_QUARTER_TURNS[round(frame.rotation / 90) % 4])
    if data is None:
        return np.eye(2, dtype=np.int64)
    return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].astype(np.int64)


def turned(pixels: Pixels, stretch: float, matrix: NDArray[np.int64]) -> tuple[Pixels, float]:
    """Pixels (H, W, 3) turned and mirrored as `matrix` says, to the nearest quarter turn, and the stretch of the result."""
    (a, b), (c, d) = matrix.tolist()
    if abs(b) > abs(a):  # x is shown along y: the axes change places
        pixels, stretch = pixels.transpose(1, 0, 2), 1 / stretch
        right, down = c, b
    else:
        right, down = a, d
    if right < 0:
        pixels = pixels[:, ::-1]
    if down < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels), stretch
