"""`stillreel finetune BENCHMARK`, and `torchrun -m stillreel finetune BENCHMARK`: train on it, evaluate, print the table.

OUT is a run's folder as in pretraining; OUT/final is the model that was chosen, OUT/results.json what it is worth.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from stillreel.configs import RequestError
from stillreel.configs.benchmark import USUAL
from stillreel.configs.finetune import FinetuneSettings
from stillreel.finetune.benchmarks import Located, Opened, Split, SplitName
from stillreel.finetune.data import prepare
from stillreel.finetune.data.asked import open_asked, store_asked
from stillreel.finetune.data.loader import Pair, class_text, describe_cut, pair_loader, pairs_of, start_state
from stillreel.finetune.data.plan import describe_costs, describe_reading, devices, without_weights
from stillreel.finetune.data.store import FrameStore
from stillreel.finetune.evaluation.benchmark import benchmark_evaluator
from stillreel.finetune.evaluation.results import about_checkpoint, publish, results_of, table_of
from stillreel.pretrain.data import Share
from stillreel.pretrain.data.tokens import Tokenizer, tokenizer_of
from stillreel.pretrain.engine.doubts import doubts_of
from stillreel.pretrain.engine.loop import Metrics
from stillreel.pretrain.engine.parallel import autocast_of
from stillreel.pretrain.engine.prefetcher import DeviceBatch, DevicePrefetcher
from stillreel.pretrain.engine.session import Session, Training, open_session, run_training
from stillreel.pretrain.engine.start import check_size, resolve_start
from stillreel.pretrain.evaluation import EvaluationResult, Evaluator
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.model.normalize import Pixels
from stillreel.pretrain.objectives import ClassTexts
from stillreel.pretrain.run.folder import FINAL
from stillreel.pretrain.run.opening import Described
from stillreel.shards.stream.stream import State

_log = logging.getLogger(__name__)
_CHOSEN_BY = {"retrieval": "t2v_r1", "recognition": "top1", "choice": "accuracy"}


def run(name: str, settings: FinetuneSettings) -> int:
    """Train to the last step, from the latest checkpoint in OUT if there is one; choose; test. Returns 0 when that is done."""
    settings, described = resolve_start(settings, USUAL.get(name, {}))
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
        print(describe_cut(pairs, settings.context_length, tokenizer_of(described.towers)))
        print(describe_costs(settings, described, len(pairs), classes))
        for doubt in doubts_of(settings, len(pairs), without_weights(described)):
            _log.warning(doubt)
        print(describe_reading(settings, pairs, store, max(len(devices()), 1)))
        return 0
    if settings.prepare:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise RequestError("prepare=true is one process with `workers` of its own; run it without torchrun")
        return prepare.run(opened, settings)
    if opened.benchmark.selection:
        settings = settings.model_copy(update={"best_metric": _CHOSEN_BY[opened.benchmark.protocol.task]})
    with open_session(settings) as session:
        FinetuneRun(settings, opened, store, pairs, session, described).work()
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
    described: Described

    def work(self) -> EvaluationResult:
        """Train to the last step, save the model that is chosen, test it."""
        self.train()
        return self._test()

    def train(self) -> None:
        """Train to the last step, save the model that is chosen."""
        settings, selection = self.settings, self.opened.benchmark.selection
        training = Training(
            seed=settings.seed,
            samples=len(self.pairs),
            order=("seed",),
            start=start_state(self.pairs, settings.seed, settings.together),
            feed=self._feed,
            description=f"{self.opened.report()}\n{describe_cut(self.pairs, settings.context_length, self._tokenizer)}",
            evaluate_every=settings.eval.every or settings.save_every,
            evaluate=partial(self._metrics, self._evaluator(selection)) if selection else None,
            chooses=bool(selection),
        )
        run_training(self.session, settings, training)

    def _feed(self, state: State, steps: int) -> Iterator[DeviceBatch]:
        ranks = self.session.ranks
        loader = pair_loader(
            self.pairs,
            self.settings,
            Share(self.settings.batch, ranks.rank, ranks.ranks),
            state,
            steps,
            store=self.store,
            pin_memory=ranks.device.type == "cuda",
            tokenizer=self._tokenizer,
        )
        dtype, texts = self._autocast or torch.float32, self._class_texts()
        pixels = Pixels.told_by(self.described.preprocess)
        return iter(DevicePrefetcher(loader, ranks.device, dtype=dtype, texts=texts, pixels=pixels))

    def _class_texts(self) -> ClassTexts | None:
        """None where clips are not told apart by their classes."""
        if not self.settings.objective.classes:
            return None
        texts = [class_text(label, self.settings.prompt) for label in self.opened.benchmark.labels]
        return ClassTexts(texts, self._tokenizer(texts, self.settings.context_length))

    @property
    def _tokenizer(self) -> Tokenizer:
        return tokenizer_of(self.described.towers)

    @property
    def _autocast(self) -> torch.dtype | None:
        return autocast_of(self.settings, self.session.ranks.device)

    def _evaluator(self, split: SplitName) -> Evaluator:
        return benchmark_evaluator(
            self.opened.located,
            split,
            self.settings,
            tokenizer=self._tokenizer,
            together=self.session.together,
            batch=min(32, max(self.settings.batch // self.session.ranks.ranks, 1)),
            workers=self.settings.workers,
            store=self.store,
            selection=selection_in(self.opened),
        )

    def _metrics(self, evaluator: Evaluator, model: VideoTextModel) -> Metrics:
        return evaluator.evaluate(model, autocast=self._autocast).metrics()

    def _test(self) -> EvaluationResult:
        """The model that was saved, on the test split: once."""
        final = self.session.folder.path / FINAL
        evaluator = self._evaluator("test")
        model = load_model(final).to(self.session.ranks.device)
        result = evaluator.evaluate(model, autocast=self._autocast)
        if self.session.ranks.is_first:
            about = about_checkpoint(str(final))
            results = results_of(self.opened, "test", evaluator.protocol, result, self.settings, about)
            path = publish(Path(self.session.folder.path), results)
            print(table_of(evaluator.protocol, result))
            self.session.say(f"{path}: every query's rank, and how it was asked")
        return result
