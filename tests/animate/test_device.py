"""The device renderer, on CPU tensors and on a GPU where there is one, against the CPU renderer."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import simplejpeg

from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.pictures.picture import stored_pixels
from stillreel.animate.render.cpu import Renderer
from stillreel.configs.grammar import load_grammar
from stillreel.configs.looks import load_look
from stillreel.configs.settings import preset_names
from tests.making import SHARED, jpeg, needs_shared

torch = pytest.importorskip("torch", reason="the device renderer is torch's: pip install '.[train]'")

from stillreel.animate.render.device import batch_stills, prepare_still, render_normalized, render_stills  # noqa: E402
from stillreel.pretrain.model.normalize import CLIPS_PIXELS, affine, normalize  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def recipe_of(grammar: str, key: str, data: bytes) -> Recipe:
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    return draw_recipe(grammar, load_grammar(grammar), None, 0, key, (width, height), ("a",)).recipe


def compare(grammar: str, pictures: dict[str, bytes], frames: int, size: int, device: str) -> list[np.ndarray]:
    """Differences of the two renderers, a clip each, rendered as one batch."""
    loads = {key: partial(stored_pixels, data) for key, data in pictures.items()}
    recipes = {key: recipe_of(grammar, key, data) for key, data in pictures.items()}
    stills = [prepare_still(recipes[key], loads[key], frames, size) for key in pictures]
    clips = render_stills(batch_stills(stills), device).cpu().numpy()
    renderer = Renderer()
    return [
        np.abs(clip.astype(int) - renderer.film(recipes[key], loads[key], frames, size))
        for key, clip in zip(pictures, clips, strict=True)
    ]


@needs_shared
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("grammar", preset_names("grammars"))
def test_frames_are_the_cpu_s(grammar: str, device: str) -> None:
    paths = sorted((SHARED / "data" / "images" / "coco_mini").glob("*.jpg"))[:8]
    differences = compare(grammar, {path.name: path.read_bytes() for path in paths}, 12, 224, device)
    everything = np.concatenate([difference.ravel() for difference in differences])
    assert 10 * np.log10(255**2 / max(1e-9, np.mean(everything.astype(float) ** 2))) >= 48
    assert (everything <= 1).mean() >= 0.99
    assert min((difference <= 1).mean() for difference in differences) >= 0.97
    assert everything.max() <= 8


@pytest.mark.parametrize("device", DEVICES)
def test_frames_are_the_cpu_s_for_pictures_of_all_shapes(device: str) -> None:
    """Long ones, tiny ones and ones that are decoded smaller, padded into one batch; dissolves and all moves."""
    shapes = [(900, 700), (64, 320), (320, 64), (32, 32), (640, 427), (1400, 300)]
    pictures = {f"{number} {shape}": jpeg(number, *shape) for number, shape in enumerate(shapes * 5)}
    for difference in compare("film", pictures, 5, 96, device):
        assert difference.max() <= 1
        assert (difference == 0).mean() > 0.99


def test_wide_filters_are_the_cpu_s() -> None:
    data = jpeg(1, 700, 700)
    pixels = stored_pixels(data)
    recipe = recipe_of("zoom", "wide", data)
    still = prepare_still(recipe, lambda level: stored_pixels(data, level), 6, 40)
    assert still.picture.shape[0] < pixels.shape[0], "decoded smaller"
    clip = render_stills(batch_stills([still]), "cpu").numpy()[0]
    assert (clip == Renderer().film(recipe, lambda level: stored_pixels(data, level), 6, 40)).all()


def test_nothing_is_asked_of_the_device() -> None:
    """A meta device has no values to tell: whoever asks for one, on a GPU waits, here fails."""
    shapes = [(900, 700), (64, 320), (320, 64), (32, 32), (640, 427), (1400, 300)]
    pictures = {f"{number} {shape}": jpeg(number, *shape) for number, shape in enumerate(shapes * 5)}
    stills = [
        prepare_still(recipe_of("film", key, data), partial(stored_pixels, data), 5, 32)
        for key, data in pictures.items()
    ]
    # All frames dissolve; views that nobody was to see have a strength below 0.
    stills = [
        still._replace(
            warps=still.warps._replace(
                weights=np.full_like(still.warps.weights, 0.25), strengths=still.warps.strengths.clip(min=0)
            )
        )
        for still in stills
    ]
    batch = batch_stills(stills)
    assert len(batch.straight) and len(batch.affine) and len(batch.perspective) and len(batch.copies)
    frames = render_stills(batch, "meta")
    assert frames.is_meta and frames.shape == (30, 5, 32, 32, 3)
    assert normalize(frames).shape == (30, 5, 3, 32, 32)


def test_recipes_with_a_look_are_refused() -> None:
    data = jpeg(2)
    recipe = draw_recipe("film", load_grammar("film"), load_look("drifting"), 0, "k", (160, 120), ("a",)).recipe
    with pytest.raises(ValueError, match=r"has a look \(RandomBrightnessContrast.*render on the CPU"):
        prepare_still(recipe, lambda level: stored_pixels(data, level), 4, 64)


def test_frames_are_normalized_as_they_are_elsewhere() -> None:
    data = jpeg(4)
    batch = batch_stills([prepare_still(recipe_of("film", "k", data), partial(stored_pixels, data), 4, 48)])
    ready = render_normalized(batch, "cpu", *affine(*CLIPS_PIXELS, torch.device("cpu")), torch.bfloat16)
    assert torch.equal(ready, normalize(render_stills(batch, "cpu")))


def test_normalized_frames_are_what_clip_eats() -> None:
    frames = torch.randint(0, 256, (2, 3, 8, 8, 3), dtype=torch.uint8)
    ready = normalize(frames, dtype=torch.float32)
    assert ready.shape == (2, 3, 3, 8, 8)
    expected = (frames[1, 2, 4, 5].double() / 255 - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
        [0.26862954, 0.26130258, 0.27577711]
    )
    assert torch.allclose(ready[1, 2, :, 4, 5].double(), expected, atol=1e-5)
    assert normalize(frames).dtype == torch.bfloat16


def test_a_batch_keeps_each_picture_once() -> None:
    """No copy for each frame and no padding: what travels is pictures, and a plan of less than a frame each."""
    data = jpeg(3)
    still = prepare_still(recipe_of("film", "k", data), lambda level: stored_pixels(data, level), 48, 64)
    batch = batch_stills([still, still._replace(picture=still.picture[:100, :90])])
    assert len(batch.pixels) == 3 * (120 * 160 + 100 * 90)
    assert batch.sources[:2].tolist() == [[0, 480, 159, 119], [3 * 120 * 160, 270, 89, 99]]
    assert (batch.pixels[3 * 120 * 160 :].view(100, 90, 3).numpy() == still.picture[:100, :90]).all()
    plan = sum(part.nbytes for part in batch[4:])
    assert plan < 96 * 64 * 64


def test_only_the_part_that_a_turned_view_sees_is_filtered() -> None:
    shapes = [(900, 700), (640, 427)] * 8
    pictures = {f"{number} {shape}": jpeg(number, *shape) for number, shape in enumerate(shapes)}
    stills = [
        prepare_still(recipe_of("film", key, data), partial(stored_pixels, data), 5, 32)
        for key, data in pictures.items()
    ]
    batch = batch_stills(stills)
    of, to = batch.copies[:, :2].T
    left, top, right, bottom = batch.copies[:, 4:].T
    assert len(of) and (batch.sources[to, 2:] == batch.sources[of, 2:]).all()
    assert ((left >= 0) & (top >= 0) & (right - 1 <= batch.sources[of, 2]) & (bottom - 1 <= batch.sources[of, 3])).all()
    area = ((right - left) * (bottom - top)).sum()
    assert batch.room == len(batch.pixels) + 3 * int(area)
    assert area < (batch.sources[of, 2:] + 1).prod(dim=1).sum()
