"""`stillreel pretrain PRESET`, and `torchrun -m pretrain PRESET`: clip shards in, checkpoints out.

OUT/checkpoints/step-N/     a model and what only training needs        OUT/run.json        settings and versions
OUT/final/                  the model at the end                        OUT/metrics.jsonl   how it went
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from configs import RequestError
from configs.model import ModelSettings
from configs.pretrain import PretrainSettings
from pretrain.average import WeightAverage, mix_with_start
from pretrain.data import ClipLoader, Share
from pretrain.data.together import Together
from pretrain.evaluation import HeldOut
from pretrain.feed import Fed, Feeder
from pretrain.loop import Metrics, Pace, Records, Trained, tell_evaluation, train
from pretrain.model import VideoTextModel, build_model, load_model
from pretrain.model.flops import clip_flops
from pretrain.model.initialise import add_reranker
from pretrain.model.towers import model_cfg_of
from pretrain.objectives import Task
from pretrain.optimiser import build_optimiser, freeze_towers
from pretrain.parallel import autocast_of, gathered, parallelise
from pretrain.ranks import Ranks, joined
from pretrain.run import Display, Journal, Meter, RunFolder, StopWish, restore_snapshot
from pretrain.run.compare import compare_settings
from pretrain.state import gather_tensors
from shards.stream import Blend, State, open_blend

_PATIENCE_S = 1800.0  # the others wait so long while rank 0 writes a checkpoint

# What a run cannot change when it goes on: the order of its data, and what its weights are.
_ORDER = ("stream.seed", "stream.lanes", "stream.window")
_MODEL = tuple(f"model.{name}" for name in ModelSettings.model_fields if name != "towers")
BINDING = frozenset((*_ORDER, *_MODEL, "model.towers.name"))


def run(_preset: str, settings: PretrainSettings) -> int:
    """Train to the last step, from the latest checkpoint in OUT if there is one. Returns 0 when it is reached."""
    blend = open_blend(settings.data)
    held_out = open_blend(settings.evaluation.data) if settings.evaluation.data else None
    with StopWish() as wish, joined(settings.device) as ranks:
        Share(settings.batch, ranks.rank, ranks.ranks).check()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        together = Together(ranks.ranks, _PATIENCE_S)
        with RunFolder(settings.out, settings.run, together, ranks.rank) as folder:
            _run(settings, blend, held_out, ranks, together, folder, wish)
    return 0


def _run(
    settings: PretrainSettings,
    blend: Blend,
    held_out: Blend | None,
    ranks: Ranks,
    together: Together,
    folder: RunFolder,
    wish: StopWish,
) -> None:
    steps = steps_of(settings, blend)
    checkpoint = folder.begin(settings, BINDING)
    trained = build_trained(settings, ranks)
    start = gather_tensors(trained.task.model.state_dict()) if settings.average.trained < 1 else None
    state = blend.start(settings.stream.order(), 0, settings.batch)
    if checkpoint is not None:
        state = checkpoint.stream
        snapshot = checkpoint.read()
        restore_snapshot(snapshot, trained.task, trained.optimiser)
        if trained.average is not None:
            trained.average.load(snapshot.group("average"))
        del snapshot
    evaluate = None if held_out is None else _evaluation(settings, held_out, trained, ranks)
    if ranks.is_first:
        _say(f"{blend.describe()}\n{_plan(settings, blend, steps, ranks)}")
    with _records(settings, blend, steps, state, ranks, together, folder) as records:
        if evaluate and not state.steps:
            tell_evaluation(records, 0, evaluate)
        if state.steps < steps:
            pace = Pace(steps, settings.evaluation.every, settings.run)
            feed = _feed(settings, blend, state, steps, ranks)
            train(trained, feed, pace, records, wish, flops=_flops(settings, trained), evaluate=evaluate)
        folder.finish(trained.task.model, _final_weights(settings, trained, start), steps)


def _final_weights(
    settings: PretrainSettings, trained: Trained, start: dict[str, Tensor] | None
) -> dict[str, Tensor] | None:
    """Of the model at the end, on rank 0: the average's where one is kept, mixed with the start's if asked for."""
    with trained.average.applied() if trained.average else nullcontext():
        weights = gather_tensors(trained.task.model.state_dict())
    if weights is None or start is None:
        return weights
    return mix_with_start(start, weights, settings.average.trained)


def steps_of(settings: PretrainSettings, blend: Blend) -> int:
    """Steps of the whole run."""
    samples = sum(corpus.samples for corpus in blend.corpora)
    return settings.steps or math.ceil(settings.epochs * samples / settings.batch)


def build_trained(settings: PretrainSettings, ranks: Ranks) -> Trained:
    """The model at its start, on the device, and what trains it; the same on every rank."""
    torch.manual_seed(settings.stream.seed)
    model = _model(settings).to(ranks.device)
    task = Task(model, settings.objective)
    task.train()
    freeze_towers(task, settings.optimiser)
    wrapped = parallelise(task, settings.engine)
    optimiser = build_optimiser(task, settings.optimiser)
    average = WeightAverage(task, settings.average) if settings.average.decay else None
    return Trained(task, wrapped, optimiser, settings.optimiser, settings.chunk, average)


def _model(settings: PretrainSettings) -> VideoTextModel:
    if not settings.init:
        return build_model(settings.model)
    model = load_model(settings.init)
    if settings.model.rerank.layers and model.reranker is None:
        add_reranker(model, settings.model.rerank)
    found = model.settings.model_dump(mode="json", exclude={"towers"})
    asked = settings.model.model_dump(mode="json", exclude={"towers"})
    if differences := compare_settings(found, asked):
        listed = "".join(f"\n  model.{one}" for one in differences)
        raise RequestError(
            f"init={settings.init} is another model than asked for:{listed}\n"
            "Ask for the one that it is, or start from towers alone: towers.pretrained=FILE"
        )
    return model


def _feed(settings: PretrainSettings, blend: Blend, state: State, steps: int, ranks: Ranks) -> Iterator[Fed]:
    loader = ClipLoader(
        blend,
        settings.stream,
        Share(settings.batch, ranks.rank, ranks.ranks),
        workers=settings.workers,
        state=state,
        steps=steps - state.steps,
        pin_memory=ranks.device.type == "cuda",
    )
    dtype = autocast_of(settings.engine, ranks.device) or torch.float32
    return iter(Feeder(loader, ranks.device, seed=settings.stream.seed, dtype=dtype))


def _evaluation(settings: PretrainSettings, blend: Blend, trained: Trained, ranks: Ranks) -> Callable[[], Metrics]:
    held_out = HeldOut(
        blend,
        settings.stream,
        batch=min(64, max(settings.batch // ranks.ranks, 1)),
        words=settings.stream.words,
        limit=settings.evaluation.clips,
        workers=settings.workers,
        pin_memory=ranks.device.type == "cuda",
    )
    autocast = autocast_of(settings.engine, ranks.device)

    def evaluate() -> Metrics:
        with trained.average.applied() if trained.average else nullcontext(), gathered(trained.task):
            return held_out.evaluate(trained.task.model, autocast=autocast).metrics()

    return evaluate


def _flops(settings: PretrainSettings, trained: Trained) -> Callable[[Fed], float]:
    """Operations of a step of all ranks: each clip and caption once, forward and backward; all pairs through the head; three
    pairs a clip through the re-ranker where it is trained, and the candidates of both directions where it teaches. What
    chunks and checkpointing compute again is not counted.
    """
    model, asked = trained.task.model, settings.objective
    towers = model_cfg_of(model.clip)
    pairs = 9 * bool(asked.matching) + 2 * asked.candidates * bool(asked.distil)

    @cache
    def of_clip(frames: int) -> tuple[int, int]:
        flops = clip_flops(model.settings, towers, frames, settings.stream.words, patch_dropout=asked.patch_dropout)
        return flops.training + pairs * flops.rerank, 3 * flops.head

    def of_step(fed: Fed) -> float:
        training, head = of_clip(fed.batch.frames.shape[1])
        return settings.batch * (training + (settings.batch - 1) * head)

    return of_step


@contextmanager
def _records(
    settings: PretrainSettings,
    blend: Blend,
    steps: int,
    state: State,
    ranks: Ranks,
    together: Together,
    folder: RunFolder,
) -> Iterator[Records]:
    meter = Meter(ranks.device, steps, sum(corpus.samples for corpus in blend.corpora))
    with ExitStack() as stack:
        journal = display = None
        if ranks.is_first:
            journal = stack.enter_context(Journal(folder.path, settings.run, state.steps))
            display = stack.enter_context(Display(steps, state.steps, settings.run))
        yield Records(folder, journal, display, meter, together)


def _plan(settings: PretrainSettings, blend: Blend, steps: int, ranks: Ranks) -> str:
    epochs = steps * settings.batch / sum(corpus.samples for corpus in blend.corpora)
    return (
        f"{steps:,} steps of {settings.batch:,} clips, {epochs:.3g} epochs, on {ranks.ranks} x {ranks.device.type}; "
        f"into {Path(settings.out).absolute()}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
