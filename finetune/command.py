"""`stillreel finetune BENCHMARK`, and `torchrun -m finetune BENCHMARK`: train on it, evaluate, print the table.

OUT is a run's folder as in pretraining; OUT/final is the model that was chosen, OUT/results.json what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from configs import RequestError
from configs.finetune import FinetuneSettings
from finetune.benchmarks import Located, Opened, Split, SplitName, open_benchmark
from finetune.examine import Examiner, Outcome
from finetune.loader import Pair, pair_loader, pairs_of, start_state
from finetune.plan import describe_costs
from finetune.results import about_checkpoint, publish, results_of, table_of
from finetune.weights import check_size, describe_model, settle
from pretrain.data import Share
from pretrain.feed import Fed, Feeder
from pretrain.loop import Metrics, Pace, Trained, tell_evaluation, train
from pretrain.model import load_model
from pretrain.parallel import autocast_of
from pretrain.ranks import Ranks
from pretrain.run.folder import FINAL
from pretrain.session import (
    BINDING,
    Session,
    build_trained,
    describe_run,
    final_weights,
    flops_of,
    open_records,
    open_session,
    ready_to_evaluate,
    restore,
    start_weights,
)
from shards.stream import State

_ORDER = ("seed",)


def run(name: str, settings: FinetuneSettings) -> int:
    """Train to the last step, from the latest checkpoint in OUT if there is one; choose; test. Returns 0 when that is done."""
    settings = settle(settings)
    described = describe_model(settings)
    check_size(settings.video.size, described.towers)
    opened = open_for_training(name, settings)
    pairs = pairs_of(opened.located, "train", settings.prompt)
    if not pairs:
        raise RequestError(
            f"{name}: its training split has no captions to train on; give their file with files.captions="
        )
    if settings.dry_run:
        print(f"{opened.report()}\n{opened.located.describe()}\n{describe_costs(settings, described, len(pairs))}")
        return 0
    if opened.benchmark.selection:
        metric = "t2v_r1" if opened.benchmark.protocol.task == "retrieval" else "top1"
        settings = settings.model_copy(update={"run": settings.run.model_copy(update={"best": metric})})
    with open_session(settings) as session:
        _run(settings, opened, pairs, session)
    return 0


def open_for_training(name: str, settings: FinetuneSettings) -> Opened:
    """The benchmark, whole in training and test; its validation split is there only if a checkpoint is to be chosen on it."""
    opened = open_benchmark(name, settings, needs=("train", "test"))
    located = opened.located
    split = located.benchmark.splits.get("validation")
    lacking = located.missing.get("validation", ())
    if split is None or (settings.select == "auto" and not lacking):
        return opened
    if settings.select == "auto" and settings.allow_missing and len(lacking) < len(split.videos):
        return opened
    return replace(opened, located=_without_validation(located, lacking, settings))


def _without_validation(located: Located, lacking: Sequence[str], settings: FinetuneSettings) -> Located:
    splits: dict[SplitName, Split] = {
        name: split for name, split in located.benchmark.splits.items() if name != "validation"
    }
    why = "select=last" if settings.select == "last" else f"{len(lacking):,} of its videos are missing"
    said = (
        *located.benchmark.differences,
        f"validation: not used to choose a checkpoint ({why}); the last step is taken",
    )
    return replace(located, benchmark=replace(located.benchmark, splits=splits, differences=said))


def _run(settings: FinetuneSettings, opened: Opened, pairs: Sequence[Pair], session: Session) -> None:
    ranks, folder = session.ranks, session.folder
    steps = settings.steps_of(len(pairs))
    checkpoint = folder.begin(settings, BINDING | set(_ORDER))
    trained = build_trained(settings, settings.seed, ranks)
    start = start_weights(settings, trained)
    state = start_state(pairs, settings.seed)
    if checkpoint is not None:
        state = checkpoint.stream
        restore(trained, checkpoint)
    feed = _feed(settings, pairs, state, steps, ranks)
    session.say(f"{opened.report()}\n{describe_run(settings, len(pairs), ranks)}")
    chosen = steps
    with open_records(session, settings, len(pairs), steps, state) as records:
        evaluate = _validation(settings, opened, trained, session)
        if evaluate and not state.steps:
            tell_evaluation(records, 0, evaluate)
        if state.steps < steps:
            # Validation at each checkpoint, so that the best one is there to be taken.
            pace = Pace(steps, settings.run.save_every, settings.run)
            flops = flops_of(settings, trained, settings.words)
            train(trained, feed, pace, records, session.wish, flops=flops, evaluate=evaluate)
        best = folder.best() if evaluate else None
        if best is not None:
            restore(trained, best)
            chosen = best.step
            session.say(f"chosen: step {chosen:,}, {settings.run.best} {best.metrics[settings.run.best]} on validation")
        folder.finish(trained.task.model, final_weights(settings, trained, start), chosen)
    _test(settings, opened, session)


def _feed(settings: FinetuneSettings, pairs: Sequence[Pair], state: State, steps: int, ranks: Ranks) -> Iterator[Fed]:
    loader = pair_loader(
        pairs,
        settings,
        Share(settings.batch, ranks.rank, ranks.ranks),
        state,
        max(steps - state.steps, 0),
        pin_memory=ranks.device.type == "cuda",
    )
    dtype = autocast_of(settings.engine, ranks.device) or torch.float32
    return iter(Feeder(loader, ranks.device, seed=settings.seed, dtype=dtype))


def _examiner(settings: FinetuneSettings, opened: Opened, split: str, session: Session) -> Examiner:
    batch = min(32, max(settings.batch // session.ranks.ranks, 1))
    return Examiner(
        opened.located,
        "validation" if split == "validation" else "test",
        settings,
        batch=batch,
        workers=settings.workers,
        together=session.together,
    )


def _validation(
    settings: FinetuneSettings, opened: Opened, trained: Trained, session: Session
) -> Callable[[], Metrics] | None:
    """None where no checkpoint is chosen."""
    if opened.benchmark.selection is None:
        return None
    examiner = _examiner(settings, opened, "validation", session)
    autocast = autocast_of(settings.engine, session.ranks.device)

    def evaluate() -> Metrics:
        with ready_to_evaluate(trained) as model:
            return examiner.examine(model, autocast=autocast).metrics()

    return evaluate


def _test(settings: FinetuneSettings, opened: Opened, session: Session) -> Outcome:
    """The model that was saved, on the test split: once."""
    final = session.folder.path / FINAL
    model = load_model(final).to(session.ranks.device)
    examiner = _examiner(settings, opened, "test", session)
    outcome = examiner.examine(model, autocast=autocast_of(settings.engine, session.ranks.device))
    if session.ranks.is_first:
        results = results_of(opened, "test", examiner, outcome, settings, about_checkpoint(str(final)))
        path = publish(Path(session.folder.path), results)
        print(table_of(examiner, outcome))
        session.say(f"{path}: every query's rank, and how it was asked")
    return outcome
