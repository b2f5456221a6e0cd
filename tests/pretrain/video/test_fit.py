"""Frames and pictures become what open_clip's own preprocessing makes of them, for every way in which towers were trained."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from stillreel.configs import RequestError
from stillreel.configs.finetune import EvaluateSettings
from stillreel.configs.model import ModelSettings, TowerSettings
from stillreel.configs.search import IndexSettings
from stillreel.configs.video import VideoSettings
from stillreel.finetune.benchmarks import Benchmark, Located, Protocol, Split, Video
from stillreel.finetune.evaluation.benchmark import benchmark_evaluator
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.data.tokens import CLIPS_OWN
from stillreel.pretrain.engine.start import fit_clips
from stillreel.pretrain.model.normalize import Pixels, normalize
from stillreel.pretrain.model.pretrained import preprocess_asked
from stillreel.pretrain.run.opening import describe, describe_fresh
from stillreel.pretrain.video import VideoReader
from stillreel.pretrain.video.picture import frames_of_picture
from stillreel.pretrain.video.pixels import Fit, fitted
from tests.making import picture
from tests.pretrain.video.making import write_video

SIDES, FILTERS = ("shortest", "squash", "longest"), ("bicubic", "bilinear")
SIZE = 96


def open_clips_own(pixels: np.ndarray, side: str, by: str) -> Tensor:
    """As open_clip prepares a picture, (3, SIZE, SIZE)."""
    cfg = PreprocessCfg(SIZE, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.3), interpolation=by, resize_mode=side)
    made: Tensor = image_transform_v2(cfg, is_train=False)(Image.fromarray(pixels))
    return made


def told(side: str, by: str) -> VideoSettings:
    return VideoSettings.resolve({"frames": 2, "size": SIZE, "resize": side, "interpolation": by})


@pytest.mark.parametrize(("side", "by"), list(product(SIDES, FILTERS)))
def test_pixels_are_open_clip_s_own(side: str, by: str) -> None:
    for width, height in ((320, 240), (641, 359), (240, 427), (100, 100), (60, 40)):
        pixels = picture(3, width, height)
        expected = open_clips_own(pixels, side, by)
        square = fitted(pixels, SIZE, Fit.asked(told(side, by)))
        found = normalize(torch.from_numpy(square.copy()), (0.5, 0.4, 0.3), (0.5, 0.2, 0.3), torch.float32)
        away = (found - expected).abs() * 255 * torch.tensor([0.5, 0.2, 0.3])[:, None, None]  # levels
        if side == "shortest":  # only the part that is kept is computed, and rounded otherwise
            assert away.max() < 4.1 and away.mean() < 0.3
        else:
            assert away.max() < 1e-3
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        assert np.array_equal(frames_of_picture(data.getvalue(), told(side, by))[0][1], square)


def test_the_six_ways_differ() -> None:
    pixels = picture(3, 320, 180)
    squares = [fitted(pixels, SIZE, Fit(side, by)) for side, by in product(SIDES, FILTERS)]  # type: ignore[arg-type]
    assert len({one.tobytes() for one in squares}) == 6


@pytest.mark.parametrize(("side", "by"), list(product(SIDES, FILTERS)))
def test_frames_of_a_video_are_too(side: str, by: str, tmp_path: Path) -> None:
    file = write_video(tmp_path / "v.mp4", 3)
    whole = VideoReader(VideoSettings(frames=2, size=240)).read(file)
    clip = VideoReader(told(side, by)).read(file)
    import av

    with av.open(str(file)) as opened:
        frames = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    expected = fitted(frames[int(clip.numbers[0])], SIZE, Fit.asked(told(side, by)))
    assert whole.numbers.tolist() == clip.numbers.tolist()
    assert np.abs(clip.frames[0].astype(int) - expected).max() <= 3


@pytest.mark.parametrize(
    ("name", "tag", "side", "by", "mean"),
    [
        ("ViT-B-32-quickgelu", "openai", "shortest", "bicubic", 0.48145466),
        ("ViT-B-16-SigLIP", "webli", "squash", "bicubic", 0.5),
        ("ViT-B-32-SigLIP2-256", "", "squash", "bicubic", 0.5),
        ("MobileCLIP-S1", "datacompdr", "shortest", "bilinear", 0.0),
        ("ViT-H-14-quickgelu", "dfn5b", "squash", "bicubic", 0.48145466),
        ("ViT-H-14-quickgelu", "metaclip_fullcc", "shortest", "bicubic", 0.48145466),
        ("ViT-L-14", "laion2b_s32b_b82k", "shortest", "bicubic", 0.5),
        ("ViT-L-14", "openai", "shortest", "bicubic", 0.48145466),
    ],
)
def test_a_model_s_own_way_is_taken_unless_another_is_given(
    name: str, tag: str, side: str, by: str, mean: float
) -> None:
    """Where weights of one name differ in it, it is the tag's."""
    described = describe_fresh(ModelSettings(towers=TowerSettings(name=name, pretrained=tag)))
    assert Pixels.told_by(described.preprocess).mean[0] == mean
    for settings in (EvaluateSettings(), IndexSettings()):
        video = fit_clips(settings, described).video_settings()
        assert (video.resize, video.interpolation) == (side, by)
    given = EvaluateSettings.resolve({"video": {"resize": "longest"}, "size": 64})
    video = fit_clips(given, described).video_settings()
    assert (video.resize, video.interpolation, video.size) == ("longest", by, 64)
    assert describe(name, pretrained=tag).preprocess == described.preprocess
    cfg = open_clip.get_pretrained_cfg(name, tag or "webli")
    assert cfg["resize_mode"] == side and cfg["interpolation"] == by


def test_the_configuration_beside_a_file_goes_before_its_name(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text('{"preprocess_cfg": {"resize_mode": "squash", "mean": [0, 0, 0]}}')
    for given in (tmp_path, tmp_path / "open_clip_model.safetensors"):
        found = preprocess_asked(TowerSettings(name="ViT-B-32", pretrained=str(given)))
        assert found == {"resize_mode": "squash", "mean": [0, 0, 0]}
    assert (
        preprocess_asked(TowerSettings(name="ViT-B-16-SigLIP", pretrained=str(tmp_path / "x.pt")))["mean"] == (0.5,) * 3
    )


def test_the_protocol_tells_it_and_crops_are_refused_where_all_is_shown(tmp_path: Path) -> None:
    video = Video("v", ("a dog",))
    benchmark = Benchmark("folder", "", Protocol("own", "retrieval", "single"), {"test": Split("test", (video,))})
    located = Located(benchmark, {"v": tmp_path / "v.mp4"}, {}, "")

    def described(**values: object) -> str:
        settings = EvaluateSettings.resolve({"frames": 2, **values})
        made = benchmark_evaluator(located, "test", settings, tokenizer=CLIPS_OWN, together=Together(1, 10))
        return made.protocol.described

    assert "2 frames by fps, 224 px, 32 tokens" in described()
    squashed = described(video={"resize": "squash", "interpolation": "bilinear"})
    assert "2 frames by fps, 224 px (squash), bilinear, 32 tokens" in squashed
    with pytest.raises(RequestError, match=r"views.crops=3 takes parts along the longer side, and video.resize=squash"):
        described(video={"resize": "squash"}, views={"crops": 3})
