"""The CPU renderer against a slow, double-precision, supersampled one written here."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray

from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.camera.recipe import Recipe, Shot, View
from stillreel.animate.camera.windows import windows
from stillreel.animate.clips.decode import SampleDecoder
from stillreel.animate.pictures.picture import stored_pixels
from stillreel.animate.render.cpu import Renderer, plan_warps
from stillreel.animate.render.filters import PHASES, UNIT, kernel, taps
from stillreel.configs.grammar import load_grammar
from tests.making import SHARED, needs_shared, picture

Pixels = NDArray[np.uint8]


def static(scale: float, picture_size: tuple[int, int], **view: float) -> Recipe:
    seen = View(**{"x": 0.5, "y": 0.5, "scale": scale, **view})
    return Recipe("test", picture_size, shots=(Shot("static", (0.0, 1.0), seen, seen),))


def reference(recipe: Recipe, pixels: Pixels, frames: int, size: int, samples: int = 6) -> NDArray[np.float64]:
    """Each output pixel is the mean of samples x samples points of the picture's Catmull-Rom reconstruction, in double
    precision."""
    height, width = pixels.shape[:2]
    offsets = (np.arange(size * samples) + 0.5) / (size * samples)
    u, v = np.meshgrid(offsets, offsets)
    points = np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    matrices, weights = windows(recipe, frames)
    clip = np.zeros((frames, size, size, 3))
    for t in range(frames):
        for which, share in ((0, 1 - weights[t]), (1, weights[t])):
            if share:
                mapped = matrices[t, which] @ points
                x, y = mapped[0] / mapped[2] * width - 0.5, mapped[1] / mapped[2] * height - 0.5
                values = catmull_rom(pixels.astype(np.float64), x, y).reshape(size, samples, size, samples, 3)
                clip[t] += share * values.mean(axis=(1, 3))
    return clip


def catmull_rom(pixels: NDArray[np.float64], x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """The picture at points x, y; its edges are repeated."""
    height, width = pixels.shape[:2]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    values = np.zeros((len(x), 3))
    for down in range(-1, 3):
        for right in range(-1, 3):
            share = spline(x - left - right) * spline(y - top - down)
            row, column = np.clip(top + down, 0, height - 1), np.clip(left + right, 0, width - 1)
            values += share[:, None] * pixels[row, column]
    return values


def spline(at: NDArray[Any]) -> NDArray[np.float64]:
    x = np.abs(at)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.asarray(np.where(x < 1, near, np.where(x < 2, far, 0)))


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(np.float64) - b) ** 2))))


@needs_shared
@pytest.mark.parametrize(
    ("grammar", "mean", "least"),
    [("film", 48, 42), ("zoom", 52, 50), ("pan", 52, 50), ("jump", 52, 50), ("nested", 52, 50)],
)
def test_frames_are_what_a_careful_renderer_makes(grammar: str, mean: float, least: float) -> None:
    """Straight frames to the rounding of their bytes; turned ones as well as bilinear samples can."""
    renderer = Renderer()
    found = []
    for path in sorted((SHARED / "data" / "images" / "coco_mini").glob("*.jpg"))[:3]:
        pixels = simplejpeg.decode_jpeg(path.read_bytes(), "RGB")
        recipe = draw_recipe(grammar, load_grammar(grammar), None, 0, path.name, pixels.shape[1::-1], ("a",)).recipe
        found.append(psnr(renderer.render(recipe, pixels, 3, 112), reference(recipe, pixels, 3, 112)))

    assert np.mean(found) > mean
    assert min(found) > least


@pytest.mark.parametrize("size", [(40, 33), (300, 40), (40, 300), (224, 224), (900, 700)])
@pytest.mark.parametrize("scale", [0.15, 0.6, 1.0])
def test_straight_frames_of_any_scale_and_up_to_the_edges(size: tuple[int, int], scale: float) -> None:
    pixels = picture(5, *size)
    recipe = static(scale, size)
    assert psnr(Renderer().render(recipe, pixels, 1, 80), reference(recipe, pixels, 1, 80, samples=12)) > 46


def test_a_picture_of_three_pixels_is_filmed() -> None:
    pixels = picture(5, 3, 3)
    assert (
        psnr(Renderer().render(static(1.0, (3, 3)), pixels, 1, 32), reference(static(1.0, (3, 3)), pixels, 1, 32)) > 48
    )


def test_flip_is_exact() -> None:
    pixels = picture(2, 128, 96)
    recipe = static(0.8, (128, 96))
    mirrored = Recipe("test", (128, 96), flip=True, shots=recipe.shots)
    plain = Renderer().render(recipe, pixels, 1, 64)
    assert psnr(Renderer().render(mirrored, pixels[:, ::-1].copy(), 1, 64), plain) > 48


def test_no_aliasing_when_zoomed_out() -> None:
    """Stripes finer than the output can hold become grey, as they must; a plain bilinear warp would show false ones."""
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    for scale, size in ((1.0, 100), (1.0, 240), (0.7, 150)):
        frame = Renderer().render(static(scale, (600, 600)), stripes, 1, size)[0].astype(float)
        assert frame.std() < 20, (scale, size)
        assert abs(frame.mean() - 127.5) < 3
        matrix = np.array([[600 * scale / size, 0, 0.0], [0, 600 * scale / size, 0.0]])
        plain = cv2.warpAffine(stripes, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP).astype(
            float
        )
        assert frame.std() < 0.5 * plain.std() + 2


def test_no_softness_beyond_the_source_when_zoomed_in() -> None:
    pixels = picture(3, 200, 200)
    recipe = static(0.5, (200, 200))
    clip = Renderer().render(recipe, pixels, 1, 224)
    assert psnr(clip, reference(recipe, pixels, 1, 224, samples=1)) > 45, "a the picture's reconstruction, nothing more"


def test_no_jitter_in_a_slow_pan() -> None:
    """A blob that drifts a tenth of a pixel a frame is measured to drift by that, frame after frame."""
    x, y = np.meshgrid(np.arange(300), np.arange(200))
    blob = (220 * np.exp(-((x - 150) ** 2 + (y - 100) ** 2) / 400)).astype(np.uint8)
    pixels = np.repeat(blob[..., None], 3, axis=2)
    pan = Shot("pan_right", (0.0, 1.0), View(0.48, 0.5, 0.6), View(0.52, 0.5, 0.6))
    clip = Renderer().render(Recipe("test", (300, 200), shots=(pan,)), pixels, 40, 100)[..., 0].astype(float)
    centers = (clip * np.arange(100)).sum(axis=(1, 2)) / clip.sum(axis=(1, 2))
    steps = np.diff(centers)
    assert steps.mean() == pytest.approx(-0.04 * 300 / (0.6 * 200 / 100) / 39, rel=0.02)
    assert np.abs(steps - steps.mean()).max() < 0.03


def test_dissolve_is_a_blend_in_256ths() -> None:
    pixels = picture(4, 128, 128)
    one, two = View(0.4, 0.5, 0.6), View(0.6, 0.5, 0.7)
    shots = (Shot("static", (0.0, 0.8), one, one), Shot("static", (0.2, 1.0), two, two))
    clip = Renderer().render(Recipe("test", (128, 128), shots=shots), pixels, 11, 64)
    first, last = clip[0].astype(int), clip[-1].astype(int)
    weights = windows(Recipe("test", (128, 128), shots=shots), 11)[1]
    assert (weights > 0).sum() >= 5
    for t in range(11):
        share = round(256 * weights[t])
        if weights[t]:
            assert (clip[t] == np.rint((first * (256 - share) + last * share) / 256)).all()


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.8, 1.2, 2.0, 3.0])
def test_kernels_have_the_variance_of_their_strength(strength: float) -> None:
    taps, sigma = kernel(strength)
    weights = cv2.getGaussianKernel(taps, sigma)[:, 0]
    offsets = np.arange(taps) - taps // 2
    assert (weights * offsets**2).sum() == pytest.approx((4**strength - 1) / 12, rel=0.03)


@pytest.mark.parametrize("strength", [-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 4.0])
def test_taps_are_the_mean_of_the_reconstruction_over_a_box(strength: float) -> None:
    box = max(2.0**strength, 0.25)
    first, weights = taps(strength)
    assert (weights.sum(axis=1) == UNIT).all()
    assert np.abs(weights).sum(axis=1).max() * 128 < 2**15, "sums fit 16 bits"
    inside = (np.arange(400) + 0.5) / 400 - 0.5
    for phase in (0, 13, 32, 50):
        for tap in range(-1, weights.shape[1] + 1):
            exact = UNIT * spline(phase / PHASES + box * inside - first - tap).mean()
            found = weights[phase, tap] if 0 <= tap < weights.shape[1] else 0
            assert abs(found - exact) < 2.5
    mirrored = weights[PHASES // 4], weights[3 * PHASES // 4]
    assert [w for w in mirrored[0] if w] == [w for w in mirrored[1][::-1] if w], "left and right are alike"


def strengths_of(start: float, end: float, frames: int = 40, roll: float = 0.0) -> NDArray[np.float64]:
    shot = Shot("zoom_out", (0.0, 1.0), View(0.5, 0.5, start, roll=roll), View(0.5, 0.5, end, roll=roll))
    return plan_warps(Recipe("test", (1200, 1200), shots=(shot,)), frames, 224)[1].strengths[:, 0]


def test_filters_of_straight_frames_follow_the_scale() -> None:
    strengths = strengths_of(0.12, 0.4)
    steps = np.diff(strengths)
    assert (steps >= 0).all()
    assert steps.max() < 0.1
    assert strengths[0] == pytest.approx(np.log2(0.12 * 1200 / 224), abs=0.01)
    assert strengths[-1] == pytest.approx(np.log2(0.4 * 1200 / 224), abs=0.01)


def test_turned_frames_share_a_few_filtered_copies() -> None:
    strengths = strengths_of(0.12, 0.4, roll=2.0)
    assert strengths[0] == 0, "enlarged: nothing to filter"
    steps = np.diff(strengths[strengths > 0])
    assert (steps >= 0).all() and steps.max() < 0.3
    assert len(set(strengths.tolist())) <= 7, "each costs as much as a warp"
    assert strengths[-1] == pytest.approx(np.log2(0.4 * 1200 / 224), abs=0.15)


def test_strength_is_exact_where_the_scale_does_not_change() -> None:
    strengths = strengths_of(0.35, 0.35, roll=2.0)
    assert len(set(strengths.tolist())) == 1
    assert strengths[0] == pytest.approx(np.log2(0.35 * 1200 / 224), abs=0.001)


def test_pictures_are_decoded_smaller_only_where_detail_is_left() -> None:
    def level(wide: float, close: float) -> int:
        shot = Shot("zoom_in", (0.0, 1.0), View(0.5, 0.5, wide), View(0.5, 0.5, close))
        return plan_warps(Recipe("test", (1200, 900), shots=(shot,)), 6, 200)[0]

    assert level(1.0, 0.3) == 0  # 4.5 source pixels per output pixel at the wide end, 1.35 at the close one
    assert level(1.0, 0.57) == 0
    assert level(1.0, 0.58) == 1  # 2.61: halved, 1.305 are left
    assert level(1.0, 1.0) == 1


def test_a_smaller_decode_gives_nearly_the_same_frames() -> None:
    pixels = picture(6, 1201, 903)
    jpeg = simplejpeg.encode_jpeg(pixels, quality=97, colorspace="RGB", colorsubsampling="444")
    shot = Shot("zoom_in", (0.0, 1.0), View(0.52, 0.5, 1.0), View(0.45, 0.5, 0.6, roll=4.0))
    recipe = Recipe("test", (1201, 903), shots=(shot,))
    asked = []

    def load(level: int) -> Pixels:
        asked.append(level)
        return stored_pixels(jpeg, level)

    smaller = Renderer().film(recipe, load, 4, 150)
    assert asked == [1]
    assert stored_pixels(jpeg, 1).shape == (452, 601, 3)
    assert psnr(smaller, Renderer().render(recipe, stored_pixels(jpeg), 4, 150)) > 38
    assert psnr(smaller, reference(recipe, stored_pixels(jpeg), 4, 150)) > 36


def test_a_camera_that_stands_still_repeats_its_frame() -> None:
    pixels = picture(7, 320, 240)
    clip = Renderer().render(static(0.9, (320, 240), roll=3.0), pixels, 5, 64)
    assert (clip == Renderer().render(static(0.9, (320, 240), roll=3.0), pixels, 1, 64)).all()


def test_given_memory_is_filled() -> None:
    pixels = picture(8, 200, 200)
    recipe = static(0.8, (200, 200))
    out = np.empty((3, 96, 96, 3), np.uint8)
    assert Renderer().film(recipe, lambda _: pixels, 3, 96, out) is out
    assert (out == Renderer().render(recipe, pixels, 3, 96)).all()


def test_a_renderer_can_be_used_again_for_pictures_of_other_sizes() -> None:
    used = Renderer()
    for number, size in enumerate([(320, 240), (200, 300), (320, 240), (64, 64)]):
        pixels = picture(number, *size)
        recipe = draw_recipe("film", load_grammar("film"), None, 0, f"{number}", size, ("a",)).recipe
        assert (used.render(recipe, pixels, 5, 48) == Renderer().render(recipe, pixels, 5, 48)).all()


def test_recipe_of_another_renderer_is_refused() -> None:
    recipe = Recipe("test", (64, 64), shots=static(1.0, (64, 64)).shots, renderer=99)
    with pytest.raises(ValueError, match="renderer version 99; this stillreel has 2"):
        Renderer().render(recipe, picture(0, 64, 64), 1, 32)


def test_shards_of_another_renderer_are_read_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    recipe = Recipe("test", (64, 64), shots=static(0.7, (64, 64)).shots, renderer=99)
    data = simplejpeg.encode_jpeg(picture(0, 64, 64), quality=90, colorspace="RGB")
    described = json.dumps({"recipe": recipe.to_json(), "captions": ["a"]})
    sample = {"__key__": "k", "jpg": data, "json": described.encode(), "txt": b"a"}
    decoder = SampleDecoder(frames=2, size=32)
    clips = [decoder(sample) for _ in range(3)]
    (said,) = caplog.records
    assert said.levelname == "WARNING" and "made for renderer version 99, this stillreel has 2" in said.message
    assert (clips[0].frames == Renderer().render(static(0.7, (64, 64)), stored_pixels(data), 2, 32)).all()
