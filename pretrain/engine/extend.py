"""Another model than its checkpoint was: a coarse model goes on with a re-ranker, a mean of frames with STAN's branch."""

from __future__ import annotations

from collections.abc import Iterator

from stillreel.configs import RequestError
from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.initialize import initialize
from stillreel.pretrain.run.compare import compare_settings


def extend_model(model: VideoTextModel, settings: ModelSettings) -> VideoTextModel:
    """The model with those parts of `settings` that it lacks, which begin as those of a fresh model on its towers.

    What it has keeps its weights; the temperature may be another one. RequestError where `settings` lack a part of the
    model's, or have it otherwise. The towers are shared, not copied.
    """
    found, asked = (one.model_dump(mode="json", exclude={"towers"}) for one in (model.settings, settings))
    free = tuple(f"{name}." for name in _free(model.settings))
    if refused := [one for one in compare_settings(found, asked) if not f"{one.name}.".startswith(free)]:
        listed = "".join(f"\n  model.{one}" for one in refused)
        raise RequestError(
            f"is another model than asked for:{listed}\n"
            "Ask for the one that it is, or start from its towers alone: init= model.towers.pretrained=MODEL"
        )
    if found == asked:
        return model
    extended = VideoTextModel(model.clip, settings)
    initialize(extended)
    extended.load_state_dict(model.state_dict(), strict=False)
    return extended


def _free(settings: ModelSettings) -> Iterator[str]:
    """Settings that decide nothing of a model's weights, by dotted names: those of parts that it lacks."""
    yield "temperature"
    if settings.temporal == "mean":
        yield from ("temporal", "difference", "stan")
        if settings.head != "tight":
            yield "layers"
        if settings.align == "none":
            yield "eps"
    if settings.align == "none":
        yield from ("align", "tab")
    if settings.patches == "2d":
        yield "patches"
    if not settings.rerank.layers:
        yield "rerank"
