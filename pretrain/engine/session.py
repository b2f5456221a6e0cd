"""A run of training, whatever it is trained on: its processes, its folder, what it trains, what it tells, and how it ends.

with open_session(settings) as session:
    run_training(session, settings, Training(...))      begin or go on, evaluate, train, choose, write OUT/final
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillreel.configs import RequestError
from stillreel.configs.model import ModelSettings
from stillreel.configs.train import TrainSettings
from stillreel.pretrain.data import Share
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.engine.distributed import Ranks, init_distributed
from stillreel.pretrain.engine.doubts import doubts_of
from stillreel.pretrain.engine.ema import ModelEma, wise_ft
from stillreel.pretrain.engine.extend import extend_model
from stillreel.pretrain.engine.loop import Metrics, Records, Schedule, TrainState, tell_evaluation, train
from stillreel.pretrain.engine.optimizer import build_optimizer, freeze_towers
from stillreel.pretrain.engine.parallel import gathered, parallelize
from stillreel.pretrain.engine.prefetcher import DeviceBatch
from stillreel.pretrain.engine.state import gather_tensors
from stillreel.pretrain.model import VideoTextModel, build_model
from stillreel.pretrain.model.flops import clip_flops
from stillreel.pretrain.model.towers import model_cfg_of
from stillreel.pretrain.objectives import Batch, Task
from stillreel.pretrain.run import (
    Checkpoint,
    Display,
    Meter,
    MetricsLogger,
    PreemptionHandler,
    RunFolder,
    restore_snapshot,
)
from stillreel.pretrain.run.opening import open_model
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
    preemption: PreemptionHandler

    def say(self, text: str) -> None:
        """In the log, where one of the ranks speaks for all."""
        if self.ranks.is_first:
            _log.info(text)


class Training(NamedTuple):
    """What a command brings to a run: its data and what they are evaluated on."""

    seed: int  # of the weights' start
    samples: int  # an epoch
    order: Collection[str]  # settings that decide the order of the data, and so cannot change when the run goes on
    start: State  # where the data of a new run begin
    feed: Callable[[State, int], Iterator[DeviceBatch]]  # from a state on, so many steps
    description: str  # of the data
    evaluate_every: int  # steps
    evaluate: Callable[[VideoTextModel], Metrics] | None = None
    chooses: bool = False  # the best checkpoint by `best_metric`, in place of the last step


@contextmanager
def open_session(settings: TrainSettings) -> Iterator[Session]:
    """Join the other ranks and take OUT. RequestError where ranks, device or OUT do not fit what is asked."""
    with PreemptionHandler() as preemption, init_distributed(settings.device) as ranks:
        Share(settings.batch, ranks.rank, ranks.ranks).check()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        together = Together(ranks.ranks, _PATIENCE_S)
        with RunFolder(settings.out, settings, together, ranks.rank) as folder:
            yield Session(ranks, together, folder, preemption)


def run_training(session: Session, settings: TrainSettings, training: Training) -> None:
    """From the latest checkpoint in OUT, if there is one, to the last step; then OUT/final. All ranks call it.

    Interrupted when it was stopped, and saved, before.
    """
    ranks, folder = session.ranks, session.folder
    steps = settings.steps_of(training.samples)
    checkpoint = folder.begin(settings, BINDING | set(training.order))
    state = build_train_state(settings, training.seed, ranks)
    start = start_weights(settings, state)
    data = training.start
    if checkpoint is not None:
        data = checkpoint.stream
        restore(state, checkpoint)
    feed = training.feed(data, max(steps - data.steps, 0))
    session.say(f"{training.description}\n{describe_run(settings, training.samples, ranks)}")
    if ranks.is_first:
        for doubt in doubts_of(settings, training.samples, state.task.model):
            _log.warning(doubt)
    evaluate = None if training.evaluate is None else partial(_evaluate, state, training.evaluate)
    with open_records(session, settings, training.samples, steps, data) as records:
        if evaluate and not data.steps:
            tell_evaluation(records, 0, evaluate)
        if data.steps < steps:
            schedule = Schedule(steps, training.evaluate_every, settings)
            train(
                state, feed, schedule, records, session.preemption, flops=flops_of(settings, state), evaluate=evaluate
            )
        chosen = _restore_best(session, settings, state) if training.chooses else steps
        folder.finish(state.task.model, final_weights(settings, state, start), chosen)


def _evaluate(state: TrainState, evaluate: Callable[[VideoTextModel], Metrics]) -> Metrics:
    """The model whole, and with the averaged weights where they are kept."""
    with state.ema.applied() if state.ema else nullcontext(), gathered(state.task):
        return evaluate(state.task.model)


def _restore_best(session: Session, settings: TrainSettings, state: TrainState) -> int:
    """Make it the checkpoint that is best by `best_metric`; its step."""
    best, name = session.folder.best(), settings.best_metric
    assert best is not None, "the last step is saved with its metrics"
    restore(state, best)
    session.say(f"chosen: step {best.step:,}, {name} {best.metrics[name]:.4g} on validation")
    return best.step


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
    model = open_model(settings.init, settings.model.towers.pretrained)
    try:
        return extend_model(model, settings.model)
    except RequestError as error:
        raise RequestError(f"init={settings.init} {error}") from None


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Make it what it was when the checkpoint was saved."""
    snapshot = checkpoint.read()
    restore_snapshot(snapshot, state.task, state.optimizer)
    if state.ema is not None:
        state.ema.load(snapshot.group("ema"))


def start_weights(settings: TrainSettings, state: TrainState) -> dict[str, Tensor] | None:
    """Those that the final ones are mixed with, on rank 0; None if they are not asked for. Before anything is restored."""
    return gather_tensors(state.task.model.state_dict()) if settings.wise_ft_alpha < 1 else None


def final_weights(
    settings: TrainSettings, state: TrainState, start: dict[str, Tensor] | None
) -> dict[str, Tensor] | None:
    """Of the model at the end, on rank 0: the average's where one is kept, mixed with the start's if asked for."""
    with state.ema.applied() if state.ema else nullcontext():
        weights = gather_tensors(state.task.model.state_dict())
    if weights is None or start is None:
        return weights
    return wise_ft(start, weights, settings.wise_ft_alpha)


def flops_of(settings: TrainSettings, state: TrainState) -> Callable[[Batch], float]:
    """`step_flops` of a step, by its batch."""
    model, towers = state.task.model.settings, model_cfg_of(state.task.model.clip)

    of_step = cache(partial(step_flops, settings, model, towers))

    def of_batch(batch: Batch) -> float:
        return of_step(batch.frames.shape[1], batch.token_ids.shape[1], batch.classes.total if batch.classes else 0)

    return of_batch


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
