"""What every run has around its loop, whatever it is trained on: its processes, its folder, what it trains, what it tells.

with open_session(settings) as session:
    checkpoint = session.folder.begin(settings, BINDING)
    trained = build_train_state(settings, seed, session.ranks)
    start = start_weights(settings, trained)
    if checkpoint: restore(trained, checkpoint)
    with open_records(session, settings, ...) as records:
        train(trained, ..., records, session.wish, ...)
        session.folder.finish(trained.task.model, final_weights(settings, trained, start), steps)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillreel.configs import RequestError
from stillreel.configs.model import ModelSettings
from stillreel.configs.train import TrainSettings
from stillreel.pretrain.data import Share
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.engine.distributed import Ranks, joined
from stillreel.pretrain.engine.ema import ModelEma, wise_ft
from stillreel.pretrain.engine.extend import extend_model
from stillreel.pretrain.engine.loop import Records, TrainState
from stillreel.pretrain.engine.optimizer import build_optimizer, freeze_towers
from stillreel.pretrain.engine.parallel import gathered, parallelize
from stillreel.pretrain.engine.prefetcher import DeviceBatch
from stillreel.pretrain.engine.state import gather_tensors
from stillreel.pretrain.model import VideoTextModel, build_model, load_model
from stillreel.pretrain.model.flops import clip_flops
from stillreel.pretrain.model.towers import model_cfg_of
from stillreel.pretrain.objectives import Task
from stillreel.pretrain.run import (
    Checkpoint,
    Display,
    Meter,
    MetricsLogger,
    PreemptionHandler,
    RunFolder,
    restore_snapshot,
)
from stillreel.shards.stream.stream import State

# What a run cannot change when it goes on: what its weights are. Its data add what is their order.
BINDING = frozenset(
    (*(f"model.{name}" for name in ModelSettings.model_fields if name != "towers"), "model.towers.name")
)

_log = logging.getLogger(__name__)
_PATIENCE_S = 1800.0  # the others wait so long while rank 0 writes a checkpoint


class Session(NamedTuple):
    """This process of a run."""

    ranks: Ranks
    together: Together
    folder: RunFolder
    wish: PreemptionHandler

    def say(self, text: str) -> None:
        """In the log, where one of the ranks speaks for all."""
        if self.ranks.is_first:
            _log.info(text)


@contextmanager
def open_session(settings: TrainSettings) -> Iterator[Session]:
    """Join the other ranks and take OUT. RequestError where ranks, device or OUT do not fit what is asked."""
    with PreemptionHandler() as wish, joined(settings.device) as ranks:
        Share(settings.batch, ranks.rank, ranks.ranks).check()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        together = Together(ranks.ranks, _PATIENCE_S)
        with RunFolder(settings.out, settings, together, ranks.rank) as folder:
            yield Session(ranks, together, folder, wish)


def build_train_state(settings: TrainSettings, seed: int, ranks: Ranks) -> TrainState:
    """The model at its start, on the device, and what trains it; the same on every rank."""
    torch.manual_seed(seed)
    model = _model(settings).to(ranks.device)
    task = Task(model, settings.objective)
    task.train()
    freeze_towers(task, settings.optimizer)
    wrapped = parallelize(task, settings)
    optimizer = build_optimizer(task, settings.optimizer)
    ema = ModelEma(task, settings.ema) if settings.ema.decay else None
    return TrainState(task, wrapped, optimizer, settings.optimizer, settings.micro_batch, ema)


def _model(settings: TrainSettings) -> VideoTextModel:
    if not settings.init:
        return build_model(settings.model)
    model = load_model(settings.init)
    try:
        return extend_model(model, settings.model)
    except RequestError as error:
        raise RequestError(f"init={settings.init} {error}") from None


def restore(trained: TrainState, checkpoint: Checkpoint) -> None:
    """Make it what it was when the checkpoint was saved."""
    snapshot = checkpoint.read()
    restore_snapshot(snapshot, trained.task, trained.optimizer)
    if trained.ema is not None:
        trained.ema.load(snapshot.group("ema"))


def start_weights(settings: TrainSettings, trained: TrainState) -> dict[str, Tensor] | None:
    """Those that the final ones are mixed with, on rank 0; None if they are not asked for. Before anything is restored."""
    return gather_tensors(trained.task.model.state_dict()) if settings.wise_ft_alpha < 1 else None


def final_weights(
    settings: TrainSettings, trained: TrainState, start: dict[str, Tensor] | None
) -> dict[str, Tensor] | None:
    """Of the model at the end, on rank 0: the average's where one is kept, mixed with the start's if asked for."""
    with trained.ema.applied() if trained.ema else nullcontext():
        weights = gather_tensors(trained.task.model.state_dict())
    if weights is None or start is None:
        return weights
    return wise_ft(start, weights, settings.wise_ft_alpha)


@contextmanager
def ready_to_evaluate(trained: TrainState) -> Iterator[VideoTextModel]:
    """Within it, the model whole and with the averaged weights, where they are kept."""
    with trained.ema.applied() if trained.ema else nullcontext(), gathered(trained.task):
        yield trained.task.model


def flops_of(settings: TrainSettings, trained: TrainState, words: int) -> Callable[[DeviceBatch], float]:
    """`step_flops` of a step, by what it is fed."""
    model, towers = trained.task.model.settings, model_cfg_of(trained.task.model.clip)

    @cache
    def of_step(frames: int, classes: int) -> int:
        return step_flops(settings, model, towers, frames, words, classes)

    def of_fed(fed: DeviceBatch) -> float:
        return of_step(fed.batch.frames.shape[1], fed.batch.classes.total if fed.batch.classes else 0)

    return of_fed


def step_flops(
    settings: TrainSettings, model: ModelSettings, towers: Mapping[str, Any], frames: int, words: int, classes: int
) -> int:
    """Operations of a step of all ranks: each clip and caption once, forward and backward, and the texts of so many classes; all
    pairs through the head; three pairs a clip through the re-ranker where it is trained, and the candidates of both directions
    where it teaches. What chunks and checkpointing compute again is not counted.
    """
    asked, batch = settings.objective, settings.batch
    flops = clip_flops(model, towers, frames, words, patch_dropout=asked.patch_dropout)
    pairs = 9 * bool(asked.matching) + 2 * asked.candidates * bool(asked.distill)
    texts = math.ceil(classes / batch) * batch  # as they are dealt to the rows
    heads = 3 * (batch + texts - 1) * flops.head
    return batch * (flops.training + pairs * flops.rerank + heads) + 3 * texts * flops.text


@contextmanager
def open_records(
    session: Session, settings: TrainSettings, samples: int, steps: int, state: State
) -> Iterator[Records]:
    """What a run tells: of `steps` steps, `samples` an epoch, from `state` on."""
    ranks, folder = session.ranks, session.folder
    meter = Meter(ranks.device, steps, samples)
    with ExitStack() as stack:
        journal = display = None
        if ranks.is_first:
            journal = stack.enter_context(MetricsLogger(folder.path, settings, state.steps))
            display = stack.enter_context(Display(steps, state.steps, settings))
        yield Records(folder, journal, display, meter, session.together)


def describe_run(settings: TrainSettings, samples: int, ranks: Ranks) -> str:
    """How long a run is, where it runs, where it goes."""
    steps = settings.steps_of(samples)
    return (
        f"{steps:,} steps of {settings.batch:,} clips, {steps * settings.batch / samples:.3g} epochs, on "
        f"{ranks.ranks} x {ranks.device.type}; into {Path(settings.out).absolute()}"
    )
