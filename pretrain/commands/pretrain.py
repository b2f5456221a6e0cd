"""`stillreel pretrain PRESET`, and `torchrun -m stillreel pretrain PRESET`: clip shards in, checkpoints out.

OUT/checkpoints/step-N/     a model and what only training needs        OUT/run.json        settings and versions
OUT/final/                  the model at the end                        OUT/metrics.jsonl   how it went
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from stillreel.configs.pretrain import PretrainSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.pretrain.engine.distributed import Ranks
from stillreel.pretrain.engine.loop import Metrics, Pace, TrainState, tell_evaluation, train
from stillreel.pretrain.engine.parallel import autocast_of
from stillreel.pretrain.engine.prefetcher import DeviceBatch, DevicePrefetcher
from stillreel.pretrain.engine.session import (
    BINDING,
    Session,
    build_train_state,
    describe_run,
    final_weights,
    flops_of,
    open_records,
    open_session,
    ready_to_evaluate,
    restore,
    start_weights,
)
from stillreel.pretrain.evaluation import HeldOut
from stillreel.shards.stream.stream import Blend, State, open_blend

_ORDER = ("seed", "lanes", "window")


def run(_preset: str, settings: PretrainSettings) -> int:
    """Train to the last step, from the latest checkpoint in OUT if there is one. Returns 0 when it is reached."""
    blend = open_blend(settings.data)
    held_out = open_blend(settings.eval.data) if settings.eval.data else None
    with open_session(settings) as session:
        _run(settings, blend, held_out, session)
    return 0


def _run(settings: PretrainSettings, blend: Blend, held_out: Blend | None, session: Session) -> None:
    ranks, folder = session.ranks, session.folder
    samples = sum(corpus.samples for corpus in blend.corpora)
    steps = settings.steps_of(samples)
    checkpoint = folder.begin(settings, BINDING | set(_ORDER))
    trained = build_train_state(settings, settings.seed, ranks)
    start = start_weights(settings, trained)
    state = blend.start(settings.order(), 0, settings.batch)
    if checkpoint is not None:
        state = checkpoint.stream
        restore(trained, checkpoint)
    evaluate = None if held_out is None else _evaluation(settings, held_out, trained, ranks)
    session.say(f"{blend.describe()}\n{describe_run(settings, samples, ranks)}")
    with open_records(session, settings, samples, steps, state) as records:
        if evaluate and not state.steps:
            tell_evaluation(records, 0, evaluate)
        if state.steps < steps:
            pace = Pace(steps, settings.eval.every, settings)
            feed = _feed(settings, blend, state, steps, ranks)
            flops = flops_of(settings, trained, settings.context_length)
            train(trained, feed, pace, records, session.wish, flops=flops, evaluate=evaluate)
        folder.finish(trained.task.model, final_weights(settings, trained, start), steps)


def _feed(settings: PretrainSettings, blend: Blend, state: State, steps: int, ranks: Ranks) -> Iterator[DeviceBatch]:
    loader = ClipLoader(
        blend,
        settings,
        Share(settings.batch, ranks.rank, ranks.ranks),
        workers=settings.workers,
        state=state,
        steps=steps - state.steps,
        pin_memory=ranks.device.type == "cuda",
    )
    dtype = autocast_of(settings, ranks.device) or torch.float32
    return iter(DevicePrefetcher(loader, ranks.device, seed=settings.seed, dtype=dtype))


def _evaluation(settings: PretrainSettings, blend: Blend, trained: TrainState, ranks: Ranks) -> Callable[[], Metrics]:
    held_out = HeldOut(
        blend,
        settings,
        batch=min(64, max(settings.batch // ranks.ranks, 1)),
        words=settings.context_length,
        limit=settings.eval.clips,
        workers=settings.workers,
        pin_memory=ranks.device.type == "cuda",
    )
    autocast = autocast_of(settings, ranks.device)

    def evaluate() -> Metrics:
        with ready_to_evaluate(trained) as model:
            return held_out.evaluate(model, autocast=autocast).metrics()

    return evaluate
