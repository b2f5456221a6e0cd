"""Which model is meant: a folder of ours, the OUT of a run, somebody else's file, or a CLIP by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from stillreel.configs import DataError, RequestError
from stillreel.configs.exchange import ImportSettings
from stillreel.configs.finetune import EvaluateSettings, FinetuneSettings
from stillreel.configs.model import ModelSettings
from stillreel.configs.system.claims import parse_json
from stillreel.finetune.commands.import_checkpoint import read_foreign
from stillreel.pretrain.model import VideoTextModel, build_model, load_model
from stillreel.pretrain.model.checkpoint import CONFIG
from stillreel.pretrain.model.files import FORMAT, read_checkpoint
from stillreel.pretrain.model.pretrained import named_cfg
from stillreel.pretrain.run.checkpoint import step_name, steps_in
from stillreel.pretrain.run.folder import CHECKPOINTS, FINAL


class Described(NamedTuple):
    """A model without its weights: its settings, and the towers' sizes as open_clip has them."""

    settings: ModelSettings
    towers: dict[str, Any]


def model_folder(path: str) -> str:
    """The folder of a model: PATH itself, or of a run's OUT its final one, or its latest checkpoint."""
    here = Path(path).expanduser()
    latest = [here / CHECKPOINTS / step_name(step) for step in steps_in(here / CHECKPOINTS)[-1:]]
    return str(next((one for one in (here, here / FINAL, *latest) if (one / CONFIG).is_file()), path))


def describe_model(settings: FinetuneSettings) -> Described:
    """What a run would start from; reads no weights. RequestError where there is no such model."""
    if not settings.init:
        return Described(settings.model, named_cfg(settings.model.towers.name))
    config = _config_of(settings.init)
    if config is None:
        raise RequestError(
            f"init={settings.init} is no model of stillreel's, nor the OUT of a run; `stillreel import-checkpoint "
            f"{settings.init} OUT` makes one of a peer's file"
        )
    return Described(_settings_in(config), config["towers"])


def resolve_init(settings: FinetuneSettings) -> FinetuneSettings:
    """With `init` as the folder that it means, and with its model unless another one is asked for."""
    if not settings.init:
        return settings
    settings = settings.model_copy(update={"init": model_folder(settings.init)})
    described = describe_model(settings)
    asked = "model" in settings.model_fields_set and settings.model != ModelSettings()
    return settings if asked else settings.model_copy(update={"model": described.settings})


def load_any(settings: EvaluateSettings) -> VideoTextModel:
    """The model that is to be evaluated, on the CPU."""
    if not settings.checkpoint:
        towers = settings.model.towers
        if not towers.pretrained and not towers.name.startswith(("local-dir:", "hf-hub:")):
            raise RequestError(
                "nothing to evaluate: give checkpoint=, or a CLIP, such as model.towers.name=ViT-B-32-quickgelu "
                "model.towers.pretrained=openai"
            )
        return build_model(settings.model)
    path = model_folder(settings.checkpoint)
    if _config_of(path) is not None:
        return load_model(path)
    return read_foreign(path, read_checkpoint(path), ImportSettings(peer=settings.peer))[0]


def check_size(size: int, towers: dict[str, Any]) -> None:
    """RequestError where frames are not of the towers' size."""
    expected = towers["vision_cfg"].get("image_size", 224)
    if size != expected and [size, size] != list(expected if isinstance(expected, list | tuple) else [expected]):
        raise RequestError(f"size={size}: the model's image tower reads {expected}; set size={expected}")


def _config_of(path: str) -> dict[str, Any] | None:
    """The configuration of a model of ours; None where there is none."""
    try:
        config = parse_json((Path(path) / CONFIG).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise DataError(f"{path}/{CONFIG} is cut off or no JSON") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        return None
    if not isinstance(config.get("model"), dict) or not isinstance(config.get("towers"), dict):
        raise DataError(f"{path}/{CONFIG} lacks model or towers")
    return config


def _settings_in(config: dict[str, Any]) -> ModelSettings:
    return ModelSettings.resolve({**config["model"], "towers": {"name": "inferred"}})
