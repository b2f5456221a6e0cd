"""What a run starts from: `init` or towers by name; and what goes with them where the user says nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from stillreel.configs import RequestError
from stillreel.configs.model import ModelSettings
from stillreel.configs.settings import Settings
from stillreel.configs.train import TrainSettings
from stillreel.configs.video import VideoOptions
from stillreel.pretrain.data.tokens import CLIPS_WORDS, fixed_length
from stillreel.pretrain.run.opening import Described, describe, describe_fresh, model_folder

Run = TypeVar("Run", bound=TrainSettings)
Asked = TypeVar("Asked", bound=Settings)
NOTHING: Mapping[str, int] = MappingProxyType({})


def resolve_start(settings: Run, usual: Mapping[str, int] = NOTHING) -> tuple[Run, Described]:
    """Settings with `init` as the folder that it means, its model unless another one is asked for, and `fit_clips`; and what
    the run starts from. RequestError where there is no such model."""
    if settings.init:
        settings = settings.model_copy(update={"init": model_folder(settings.init)})
        described = describe(settings.init)
        if "model" not in settings.model_fields_set or settings.model == ModelSettings():
            settings = settings.model_copy(update={"model": described.settings})
    else:
        described = describe_fresh(settings.model)
    return fit_clips(settings, described, usual), described


def fit_clips(settings: Asked, described: Described, usual: Mapping[str, int] = NOTHING) -> Asked:
    """Settings with the frames, the size and the tokens of the model, and how its towers' pixels are resized, where they are not
    given. `usual` are frames and tokens of the data, where the model says nothing of the former, and can read the latter."""
    longest = fixed_length(described.towers) or described.towers["text_cfg"].get("context_length", CLIPS_WORDS)
    told: dict[str, Any] = {"size": described.size, "frames": described.frames or usual.get("frames")}
    told["context_length"] = min(usual.get("context_length") or getattr(settings, "context_length", 0), longest)
    if isinstance(video := getattr(settings, "video", None), VideoOptions):
        told["video"] = _resized_as(video, described.preprocess)
    update = {
        key: value for key, value in told.items() if value and (key == "video" or key not in settings.model_fields_set)
    }
    return settings.model_copy(update={key: value for key, value in update.items() if hasattr(settings, key)})


def _resized_as(video: VideoOptions, preprocess: dict[str, Any]) -> VideoOptions:
    """How frames are resized, where that is not given, as open_clip's `preprocess_cfg` says; "random" is bicubic in a test."""
    told = {"resize": preprocess.get("resize_mode"), "interpolation": preprocess.get("interpolation")}
    known = {"resize": ("shortest", "squash", "longest"), "interpolation": ("bicubic", "bilinear")}
    update = {key: value for key, value in told.items() if value in known[key] and key not in video.model_fields_set}
    return video.model_copy(update=update)


def check_size(size: int, towers: dict[str, Any]) -> None:
    """RequestError where frames are not of the towers' size."""
    expected = towers["vision_cfg"].get("image_size", 224)
    if size != expected and [size, size] != list(expected if isinstance(expected, list | tuple) else [expected]):
        raise RequestError(f"size={size}: the model's image tower reads {expected}; set size={expected}")
