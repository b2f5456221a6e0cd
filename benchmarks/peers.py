"""What people render moving stills with today, each given the same upright windows: for `benchmarks/renderer.py`.

Every peer turns a JPEG and T boxes into frames uint8 (T, size, size, 3), decoding included. Peers that are not installed
are left out and named.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from benchmarks.quality import Box
from stillreel.animate import Recipe, windows

Pixels = NDArray[np.uint8]
Peer = Callable[[bytes, Sequence[Box], int], Pixels]

_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


class Warp:
    """cv2.warpAffine, bilinear, nothing else; into memory that is kept, since fresh memory costs up to half as much."""

    def __init__(self) -> None:
        self._clip = np.empty((0, 0, 0, 3), np.uint8)

    def __call__(self, jpeg: bytes, boxes: Sequence[Box], size: int) -> Pixels:
        picture = simplejpeg.decode_jpeg(jpeg, "RGB")
        if self._clip.shape != (len(boxes), size, size, 3):
            self._clip = np.empty((len(boxes), size, size, 3), np.uint8)
        for out, box in zip(self._clip, boxes, strict=True):
            cv2.warpAffine(
                picture, matrix_of(box, size), (size, size), dst=out, flags=_FLAGS, borderMode=cv2.BORDER_REPLICATE
            )
        return self._clip


def supersampled(jpeg: bytes, boxes: Sequence[Box], size: int) -> Pixels:
    """cv2.warpAffine at twice the size, averaged 2 x 2."""
    picture = simplejpeg.decode_jpeg(jpeg, "RGB")
    clip = np.empty((len(boxes), size, size, 3), np.uint8)
    twice = np.empty((2 * size, 2 * size, 3), np.uint8)
    for frame, box in zip(clip, boxes, strict=True):
        matrix = matrix_of(box, 2 * size)
        cv2.warpAffine(picture, matrix, (2 * size, 2 * size), dst=twice, flags=_FLAGS, borderMode=cv2.BORDER_REPLICATE)
        cv2.resize(twice, (size, size), dst=frame, interpolation=cv2.INTER_AREA)
    return clip


def pil_box(jpeg: bytes, boxes: Sequence[Box], size: int) -> Pixels:
    """PIL's resize of a fractional box, bicubic."""
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    cubic = Image.Resampling.BICUBIC
    return np.stack(
        [
            np.asarray(picture.resize((size, size), cubic, box=(b.left, b.top, b.left + b.side, b.top + b.side)))
            for b in boxes
        ]
    )


def pil_crop(jpeg: bytes, boxes: Sequence[Box], size: int) -> Pixels:
    """PIL's crop of whole pixels, then a bicubic resize."""
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    frames = []
    for left, top, side in boxes:
        corners = (round(left), round(top), round(left) + round(side), round(top) + round(side))
        frames.append(np.asarray(picture.crop(corners).resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(frames)


def torch_grid_sample(jpeg: bytes, boxes: Sequence[Box], size: int) -> Pixels:
    """torch.nn.functional.grid_sample, bilinear, float32, one thread."""
    import torch

    picture = torch.from_numpy(simplejpeg.decode_jpeg(jpeg, "RGB")).permute(2, 0, 1)[None].float()
    height, width = picture.shape[2:]
    theta = torch.tensor(
        [
            [
                [b.side / width, 0, 2 * (b.left + b.side / 2) / width - 1],
                [0, b.side / height, 2 * (b.top + b.side / 2) / height - 1],
            ]
            for b in boxes
        ],
        dtype=torch.float32,
    )
    grid = torch.nn.functional.affine_grid(theta, [len(boxes), 3, size, size], align_corners=False)
    tall = grid.reshape(1, -1, size, 2)
    frames = torch.nn.functional.grid_sample(picture, tall, "bilinear", "border", align_corners=False)
    clip = frames[0].view(3, len(boxes), size, size).permute(1, 2, 3, 0)
    return clip.round().clamp(0, 255).to(torch.uint8).numpy()


def kornia_warp(jpeg: bytes, boxes: Sequence[Box], size: int) -> Pixels:
    """kornia.geometry.warp_affine, bilinear, float32, one thread."""
    import kornia
    import torch

    picture = torch.from_numpy(simplejpeg.decode_jpeg(jpeg, "RGB")).permute(2, 0, 1)[None].float()
    ahead = torch.tensor(
        np.array([np.linalg.inv(np.vstack([matrix_of(box, size), [0, 0, 1]]))[:2] for box in boxes]),
        dtype=torch.float32,
    )
    frames = kornia.geometry.warp_affine(
        picture.expand(len(boxes), -1, -1, -1), ahead, (size, size), padding_mode="border"
    )
    return frames.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).numpy()


def albumentations_affine(jpeg: bytes, boxes: Sequence[Box], size: int) -> Pixels:
    """albumentations' Affine and CenterCrop, one Compose a frame, as a per-frame augmentation is written."""
    import albumentations as A

    picture = simplejpeg.decode_jpeg(jpeg, "RGB")
    height, width = picture.shape[:2]
    frames = []
    for left, top, side in boxes:
        scale = size / side
        shift = {
            "x": round((width / 2 - left - side / 2) * scale),
            "y": round((height / 2 - top - side / 2) * scale),
        }
        steps = [
            A.Affine(scale=(scale, scale), translate_px=shift, mode=cv2.BORDER_REPLICATE, p=1),
            A.CenterCrop(size, size, pad_if_needed=True, p=1),
        ]
        frames.append(A.Compose(steps)(image=picture)["image"])
    return np.stack(frames)


def moviepy_zoom(jpeg: bytes, boxes: Sequence[Box], size: int) -> Pixels:
    """moviepy: an ImageClip resized by a function of time, then cropped."""
    from moviepy import ImageClip

    def at(t: float) -> Box:
        return boxes[min(len(boxes) - 1, round(t * 25))]

    def crop(frame: Callable[[float], Pixels], t: float) -> Pixels:
        whole, box = frame(t), at(t)
        left, top = round(box.left * size / box.side), round(box.top * size / box.side)
        return whole[top : top + size, left : left + size]

    still = ImageClip(simplejpeg.decode_jpeg(jpeg, "RGB")).with_duration(len(boxes) / 25)
    moving = still.resized(lambda t: size / at(t).side).transform(crop)
    frames = [moving.get_frame(t / 25) for t in range(len(boxes))]
    return np.stack([cv2.resize(frame, (size, size)) if frame.shape[:2] != (size, size) else frame for frame in frames])


class Zoompan:
    """ffmpeg's zoompan. It keeps the picture's shape, so the picture is cropped to its middle square first."""

    def __init__(self, program: str, upscale: int = 1) -> None:
        self._program = program
        self._upscale = upscale

    def __call__(self, jpeg: bytes, boxes: Sequence[Box], size: int) -> Pixels:
        height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
        command = self._command(["-i", "pipe:0"], boxes, size, (width, height))
        return _frames(subprocess.run(command, input=jpeg, capture_output=True, check=True).stdout, size)

    def many(self, jpegs: Sequence[bytes], boxes: Sequence[Box], size: int) -> Pixels:
        """One process for all pictures, which then share one trajectory."""
        height, width = simplejpeg.decode_jpeg_header(jpegs[0])[:2]
        with tempfile.TemporaryDirectory() as folder:
            for number, jpeg in enumerate(jpegs):
                (Path(folder) / f"{number:04d}.jpg").write_bytes(jpeg)
            command = self._command(["-i", f"{folder}/%04d.jpg"], boxes, size, (width, height), pictures=len(jpegs))
            return _frames(subprocess.run(command, capture_output=True, check=True).stdout, size)

    def _command(
        self, source: list[str], boxes: Sequence[Box], size: int, shape: tuple[int, int], pictures: int = 1
    ) -> list[str]:
        width, height = shape
        square, up, frames = min(shape), self._upscale, len(boxes)
        offset = ((width - square) // 2, (height - square) // 2)
        first, last = boxes[0], boxes[-1]
        along = f"(mod(on,{frames})/{max(1, frames - 1)})"
        side = f"({first.side}*pow({last.side / first.side},{along}))"
        # As our camera moves: the center in proportion to the side, or to the time where the side stays.
        blend = f"(({side}-{first.side})/({last.side - first.side}))" if last.side != first.side else along
        x = f"({first.left - offset[0]}+({last.left - first.left})*{blend})*{up}"
        y = f"({first.top - offset[1]}+({last.top - first.top})*{blend})*{up}"
        scale = f"scale=iw*{up}:ih*{up}:flags=bicubic," if up > 1 else ""
        crop = f"crop={square}:{square}:{offset[0]}:{offset[1]},"
        pan = f"zoompan=z='{square}/{side}':x='{x}':y='{y}':d={frames}:s={size}x{size}:fps=25"
        one = ["-threads", "1"]
        return [
            *(self._program, "-v", "error", "-nostdin", *one, *source, "-filter_threads", "1"),
            *("-vf", f"{crop}{scale}{pan}", "-frames:v", str(frames * pictures)),
            *(*one, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"),
        ]


def find_peers() -> tuple[dict[str, Peer], list[str]]:
    """Peers by name, and the names of those that are not installed here."""
    found: dict[str, Peer] = {
        "cv2 warpAffine": Warp(),
        "2x2 supersampling": supersampled,
        "PIL box bicubic": pil_box,
        "PIL crop + bicubic": pil_crop,
    }
    absent = []
    for name, module, peer in (
        ("torch grid_sample", "torch", torch_grid_sample),
        ("kornia warp_affine", "kornia", kornia_warp),
        ("albumentations Affine", "albumentations", albumentations_affine),
        ("moviepy", "moviepy", moviepy_zoom),
    ):
        try:
            __import__(module)
            found[name] = peer
        except ImportError:
            absent.append(name)
    for label, program in (("ffmpeg", shutil.which("ffmpeg")), ("static ffmpeg", _static_ffmpeg())):
        if program:
            found[f"{label} zoompan"] = Zoompan(program)
            found[f"{label} x8 zoompan"] = Zoompan(program, 8)
        else:
            absent.append(f"{label} zoompan")
    return found, absent


def _static_ffmpeg() -> str | None:
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def boxes_of(recipe: Recipe, frames: int) -> list[Box]:
    """What an upright recipe's frames show, as peers are given it."""
    views = windows(recipe, frames)[0][:, 0]
    width, height = recipe.picture
    return [Box(view[0, 2] * width, view[1, 2] * height, view[0, 0] * width) for view in views]


def matrix_of(box: Box, size: int) -> NDArray[np.float64]:
    """A box as warpAffine takes it, from output pixel indices to picture pixel indices."""
    step = box.side / size
    return np.array([[step, 0, box.left + step / 2 - 0.5], [0, step, box.top + step / 2 - 0.5]])


def _frames(raw: bytes, size: int) -> Pixels:
    return np.frombuffer(raw, np.uint8).reshape(-1, size, size, 3)
