"""What is asked for and cannot come to much: said before the first step, and by a dry run."""

from __future__ import annotations

from collections.abc import Iterator

from stillreel.configs.model import ModelSettings
from stillreel.configs.train import TrainSettings
from stillreel.pretrain.model import VideoTextModel


def doubts_of(settings: TrainSettings, samples: int, model: VideoTextModel) -> Iterator[str]:
    """Of a run on so many samples an epoch, a sentence each. Of the model only names are looked at: it may be on no device."""
    yield from _of_learning(settings, new_modules(model))
    yield from _of_schedule(settings, samples)
    yield from _of_batches(settings, samples)


def new_modules(model: VideoTextModel) -> tuple[str, ...]:
    """The parts of a model that CLIP does not have, and that begin untrained."""
    names = (name.partition(".") for name, _ in model.named_parameters())
    return tuple(dict.fromkeys(first for first, _, _ in names if first != "clip"))


def of_untrained(model: VideoTextModel) -> Iterator[str]:
    """Of a fresh model on CLIP's weights that is to be evaluated as it is."""
    if new := new_modules(model):
        yield (
            f"the model's {', '.join(new)} begin untrained, and are evaluated so: give the checkpoint= that trained them, or ask "
            "for CLIP's own mean of frames, model=mean-b32"
        )


def _of_learning(settings: TrainSettings, new: tuple[str, ...]) -> Iterator[str]:
    rates, fresh = settings.optimizer, not settings.init
    if not rates.lr and not (new and rates.lr_new):
        yield f"optimizer.lr={rates.lr:g} and optimizer.lr_new={rates.lr_new:g} leave nothing of the model to train"
    elif new and not rates.lr_new and fresh:
        yield f"optimizer.lr_new=0 leaves {', '.join(new)} as they begin: untrained"
    if not rates.lr and fresh and _is_random(settings.model):
        yield "optimizer.lr=0 freezes towers whose weights are random: give init= or model.towers.pretrained="
    if not settings.wise_ft_alpha:
        yield "wise_ft_alpha=0 saves the weights of the start: nothing that is learned is kept"


def _of_schedule(settings: TrainSettings, samples: int) -> Iterator[str]:
    steps, ema = settings.steps_of(samples), settings.ema
    warmup = settings.optimizer.warmup(steps)
    if warmup >= steps and warmup > 1:
        yield (
            f"the warm-up of {warmup:,} steps is not over when the run of {steps:,} steps ends, at "
            f"{min(steps / warmup, 1):.0%} of the peak lr: give optimizer.warmup_ratio=0.1 in its place, or more epochs"
        )
    if ema.decay and not ema.warmup and ema.decay**steps > 0.5:
        yield (
            f"ema.decay={ema.decay:g} without ema.warmup keeps {ema.decay**steps:.0%} of the start in the averaged weights after "
            f"{steps:,} steps"
        )


def _of_batches(settings: TrainSettings, samples: int) -> Iterator[str]:
    if settings.batch == 1 and not (settings.objective.sigmoid or settings.objective.classes):
        yield "batch=1 has nothing to tell a clip from: the loss is 0 at every step"
    elif samples < settings.batch:
        yield (
            f"{samples:,} pairs are fewer than batch={settings.batch:,}: every step holds some of them again, and learns nothing "
            f"from those; give batch={samples} or less"
        )


def _is_random(settings: ModelSettings) -> bool:
    towers = settings.towers
    return not towers.pretrained and not towers.name.startswith(("local-dir:", "hf-hub:"))
