"""The perceptual hash: pinned bits, few of which change for the same picture in other bytes, and half for another one."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from stillreel.animate.pictures.likeness import perceptual_hash
from stillreel.animate.pictures.picture import PictureReader
from stillreel.configs.build import ClipSettings
from tests.animate.test_golden import PICTURES, pattern
from tests.making import encoded, picture, rows_of

# SCHEMA: tables hold these. A change of one makes data sets of before and after no neighbors.
PINNED = {
    (640, 480): 63299123,
    (300, 400): 3442704315840590,
    (512, 512): 30128078391,
    (1000, 220): 2229352660535,
    (33, 34): 4557611365766406088,
}


def apart(a: int, b: int) -> int:
    return int.bit_count((a ^ b) & (1 << 64) - 1)


@pytest.mark.parametrize("size", [*PICTURES, (33, 34)])
def test_bits_are_pinned(size: tuple[int, int]) -> None:
    assert perceptual_hash(pattern(*size)) == PINNED[size]


def test_threads_and_vector_instructions_change_nothing() -> None:
    """All sums are of integers that floats hold exactly, so no order of adding them matters."""
    for size in PICTURES:
        pixels = pattern(*size)
        assert perceptual_hash(pixels[:, ::-1][:, ::-1]) == perceptual_hash(pixels), "a view is read as an array is"
        assert perceptual_hash(np.asfortranarray(pixels)) == perceptual_hash(pixels)


@pytest.mark.parametrize("number", range(12))
def test_the_same_picture_in_other_bytes_is_near(number: int) -> None:
    pixels = picture(number, 480, 360)
    reader = PictureReader(ClipSettings(max_side=0))
    own = perceptual_hash(pixels)
    image = Image.fromarray(pixels)
    variants = {
        "quality 40": encoded(pixels, "JPEG", quality=40),
        "half": encoded(np.asarray(image.resize((240, 180), Image.Resampling.LANCZOS)), "JPEG", quality=85),
        "another shape": encoded(np.asarray(image.resize((256, 256), Image.Resampling.BICUBIC)), "JPEG", quality=85),
        "cropped by 1 %": encoded(pixels[2:-2, 2:-2], "JPEG", quality=90),
        "PNG": encoded(pixels, "PNG"),
    }
    found = {name: apart(own, reader.read(data).perceptual_hash()) for name, data in variants.items()}
    assert max(found.values()) <= 10 and found["PNG"] == 0, found


def test_other_pictures_are_far() -> None:
    hashes = [perceptual_hash(picture(number, 320, 240)) for number in range(40)]
    distances = [apart(a, b) for at, a in enumerate(hashes) for b in hashes[:at]]
    assert 24 < np.mean(distances) < 40


def test_a_flat_picture_has_no_bits() -> None:
    assert perceptual_hash(np.full((100, 140, 3), 255, np.uint8)) == perceptual_hash(np.zeros((40, 32, 3), np.uint8))


def test_it_is_of_the_upright_picture(tmp_path: Path) -> None:
    pixels = picture(3, 320, 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    sink = io.BytesIO()
    Image.fromarray(cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)).save(sink, "JPEG", quality=95, exif=exif)
    turned = PictureReader(ClipSettings()).read(sink.getvalue())
    assert turned.size == (320, 200)
    assert apart(turned.perceptual_hash(), perceptual_hash(pixels)) <= 3


def test_all_stores_have_the_same_in_their_tables(built: dict[str, Path]) -> None:
    hashes = {store: [row["phash"] for row in rows_of(out)] for store, out in built.items()}
    assert hashes["recipe"] == hashes["frames"] == hashes["video"]
    assert len({*hashes["recipe"]}) == 25 and all(isinstance(one, int) for one in hashes["recipe"])
