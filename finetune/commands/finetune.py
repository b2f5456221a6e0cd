"""`stillreel finetune BENCHMARK`, and `torchrun -m stillreel finetune BENCHMARK`: train on it, evaluate, print the table.

OUT is a run's folder as in pretraining; OUT/final is the model that was chosen, OUT/results.json what it is worth.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from stillreel.configs import RequestError
from stillreel.configs.finetune import FinetuneSettings
from stillreel.finetune.benchmarks import Located, Opened, Split, SplitName
from stillreel.finetune.checkpoints.weights import check_size, describe_model, settle
from stillreel.finetune.data import prepare
from stillreel.finetune.data.asked import open_asked, store_asked
from stillreel.finetune.data.loader import Pair, class_text, pair_loader, pairs_of, start_state
from stillreel.finetune.data.plan import describe_costs, describe_reading, devices
from stillreel.finetune.data.store import FrameStore
from stillreel.finetune.evaluation.evaluator import Evaluator, Outcome
from stillreel.finetune.evaluation.results import about_checkpoint, publish, results_of, table_of
from stillreel.pretrain.data import Share
from stillreel.pretrain.data.tokens import tokenize
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
from stillreel.pretrain.model import load_model
from stillreel.pretrain.objectives import ClassTexts
from stillreel.pretrain.run.folder import FINAL
from stillreel.shards.stream.stream import State

_ORDER = ("seed",)


def run(name: str, settings: FinetuneSettings) -> int:
    """Train to the last step, from the latest checkpoint in OUT if there is one; choose; test. Returns 0 when that is done."""
    settings = settle(settings)
    described = describe_model(settings)
    check_size(settings.size, described.towers)
    store = store_asked(settings)
    opened = open_for_training(name, settings, store)
    pairs = pairs_of(opened.located, "train", settings.prompt)
    if not pairs:
        raise RequestError(
            f"{name}: its training split has no captions to train on; give their file with files.captions="
        )
    if settings.objective.classes and opened.benchmark.protocol.task != "recognition":
        raise RequestError(
            f"objective.classes={settings.objective.classes} tells clips apart by their classes, and {name} has captions; "
            "set it to 0, and objective.infonce=1"
        )
    if settings.dry_run:
        print(opened.report(), f"{opened.located.describe()}; selection: {selection_in(opened)}", sep="\n")
        classes = len(opened.benchmark.labels) if settings.objective.classes else 0
        print(describe_costs(settings, described, len(pairs), classes))
        print(describe_reading(settings, pairs, store, max(len(devices()), 1)))
        return 0
    if settings.prepare:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise RequestError("prepare=true is one process with `workers` of its own; run it without torchrun")
        return prepare.run(opened, settings)
    if opened.benchmark.selection:
        metric = "t2v_r1" if opened.benchmark.protocol.task == "retrieval" else "top1"
        settings = settings.model_copy(update={"best_metric": metric})
    with open_session(settings) as session:
        FinetuneRun(settings, opened, store, pairs, session).work()
    return 0


def open_for_training(name: str, settings: FinetuneSettings, store: FrameStore | None = None) -> Opened:
    """The benchmark, whole in training and test; its validation split is there only if a checkpoint is to be chosen on it."""
    opened = open_asked(name, settings, ("train", "test"), store)
    located = opened.located
    split = located.benchmark.splits.get("validation")
    lacking = located.missing.get("validation", ())
    if split is None or (settings.select == "auto" and not lacking):
        return opened
    if settings.select == "auto" and settings.allow_missing and len(lacking) < len(split.videos):
        return opened
    return replace(opened, located=_without_validation(located, lacking, settings))


def selection_in(opened: Opened) -> str:
    """How a run chooses its model, for the protocol."""
    return "on validation" if opened.benchmark.selection else "last step"


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


@dataclass(frozen=True)
class FinetuneRun:
    """A run, and what it is on."""

    settings: FinetuneSettings
    opened: Opened
    store: FrameStore | None
    pairs: Sequence[Pair]
    session: Session

    def work(self) -> Outcome:
        """Train to the last step, save the model that is chosen, test it."""
        settings, folder = self.settings, self.session.folder
        steps = settings.steps_of(len(self.pairs))
        checkpoint = folder.begin(settings, BINDING | set(_ORDER))
        trained = build_train_state(settings, settings.seed, self.session.ranks)
        start = start_weights(settings, trained)
        state = start_state(self.pairs, settings.seed)
        if checkpoint is not None:
            state = checkpoint.stream
            restore(trained, checkpoint)
        feed = self._feed(state, steps)
        self.session.say(f"{self.opened.report()}\n{describe_run(settings, len(self.pairs), self.session.ranks)}")
        evaluate = self._validation(trained)
        with open_records(self.session, settings, len(self.pairs), steps, state) as records:
            if evaluate and not state.steps:
                tell_evaluation(records, 0, evaluate)
            if state.steps < steps:
                # Validation at each checkpoint, so that the best one is there to be taken.
                pace = Pace(steps, settings.save_every, settings)
                flops = flops_of(settings, trained, settings.context_length)
                train(trained, feed, pace, records, self.session.wish, flops=flops, evaluate=evaluate)
        chosen = self._choose(trained) if evaluate else steps
        folder.finish(trained.task.model, final_weights(settings, trained, start), chosen)
        return self._test()

    def _feed(self, state: State, steps: int) -> Iterator[DeviceBatch]:
        ranks = self.session.ranks
        loader = pair_loader(
            self.pairs,
            self.settings,
            Share(self.settings.batch, ranks.rank, ranks.ranks),
            state,
            max(steps - state.steps, 0),
            store=self.store,
            pin_memory=ranks.device.type == "cuda",
        )
        dtype, texts = self._autocast or torch.float32, self._class_texts()
        return iter(DevicePrefetcher(loader, ranks.device, seed=self.settings.seed, dtype=dtype, texts=texts))

    def _class_texts(self) -> ClassTexts | None:
        """None where clips are not told apart by their classes."""
        if not self.settings.objective.classes:
            return None
        texts = [class_text(label, self.settings.prompt) for label in self.opened.benchmark.labels]
        return ClassTexts(texts, tokenize(texts, self.settings.context_length))

    @property
    def _autocast(self) -> torch.dtype | None:
        return autocast_of(self.settings, self.session.ranks.device)

    def _examiner(self, split: SplitName) -> Evaluator:
        return Evaluator(
            self.opened.located,
            split,
            self.settings,
            batch=min(32, max(self.settings.batch // self.session.ranks.ranks, 1)),
            workers=self.settings.workers,
            together=self.session.together,
            store=self.store,
            selection=selection_in(self.opened),
        )

    def _validation(self, trained: TrainState) -> Callable[[], Metrics] | None:
        """None where no checkpoint is chosen."""
        if self.opened.benchmark.selection is None:
            return None
        examiner = self._examiner(self.opened.benchmark.selection)

        def evaluate() -> Metrics:
            with ready_to_evaluate(trained) as model:
                return examiner.examine(model, autocast=self._autocast).metrics()

        return evaluate

    def _choose(self, trained: TrainState) -> int:
        """Make it the checkpoint that is best on the validation split; its step."""
        best = self.session.folder.best()
        assert best is not None, "the last step is saved with its metrics"
        restore(trained, best)
        name = self.settings.best_metric
        self.session.say(f"chosen: step {best.step:,}, {name} {best.metrics[name]:.4g} on validation")
        return best.step

    def _test(self) -> Outcome:
        """The model that was saved, on the test split: once."""
        final = self.session.folder.path / FINAL
        examiner = self._examiner("test")
        model = load_model(final).to(self.session.ranks.device)
        outcome = examiner.examine(model, autocast=self._autocast)
        if self.session.ranks.is_first:
            about = about_checkpoint(str(final))
            results = results_of(self.opened, "test", examiner, outcome, self.settings, about)
            path = publish(Path(self.session.folder.path), results)
            print(table_of(examiner, outcome))
            self.session.say(f"{path}: every query's rank, and how it was asked")
        return outcome
