"""The half of a cell that needs torch: finetune on the benchmark, unless that is left out, then ask the model that came of it."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.study import StudySettings
from stillreel.finetune.benchmarks import Opened, SplitName
from stillreel.finetune.commands.finetune import FinetuneRun, open_for_training
from stillreel.finetune.data.asked import open_asked, store_asked
from stillreel.finetune.data.loader import pairs_of
from stillreel.finetune.data.store import FrameStore
from stillreel.finetune.evaluation.benchmark import benchmark_evaluator
from stillreel.finetune.study.grid import Cell
from stillreel.finetune.study.score import Answers, answers_of
from stillreel.finetune.study.write import videos_of_split
from stillreel.pretrain.data.tokens import Tokenizer, tokenizer_of
from stillreel.pretrain.engine.extend import extend_model
from stillreel.pretrain.engine.parallel import autocast_of
from stillreel.pretrain.engine.session import Session, open_session
from stillreel.pretrain.engine.start import check_size, resolve_start
from stillreel.pretrain.evaluation import Evaluator
from stillreel.pretrain.evaluation.results import Retrieval
from stillreel.pretrain.evaluation.two_stage.staged import evaluate_stages
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.run.folder import FINAL
from stillreel.pretrain.run.opening import Described, open_model

_AT_ONCE = 64  # videos that are encoded
_TEST: SplitName = "test"
_ASKED: tuple[SplitName, SplitName] = (_TEST, "validation")


def finetune_and_ask(settings: StudySettings, asked: FinetuneSettings, cell: Cell) -> dict[str, Answers]:
    """By stage and measure what became of each test query, in the order of the test split."""
    torch.manual_seed(asked.seed)
    tuned, described = resolve_start(asked)
    check_size(tuned.size, described.towers)
    tokenizer = tokenizer_of(described.towers)
    tokenizer([""], tuned.context_length)  # loads the vocabulary, which is no part of a cell's cost
    store = store_asked(tuned)
    name = settings.real.benchmark or "folder"
    with open_session(tuned) as session:
        model = _model(settings, tuned, described, store, session, cell)
        opened = open_asked(name, tuned, (_TEST,) if settings.real.benchmark else _ASKED, store)
        evaluator = partial(_evaluator, tuned, tokenizer, opened, store, session)
        autocast = autocast_of(tuned, session.ranks.device)
        if settings.real.benchmark:
            return _real(settings, model, evaluator(_TEST), autocast)
        videos = videos_of_split(settings.world, "test")
        assert [video.id for video in opened.benchmark.splits["test"].videos] == [video.id for video in videos]
        test, validation = (evaluator(split).encode(model, autocast=autocast) for split in _ASKED)
        assert test is not None and validation is not None, "a study's runs have one rank each"
        return answers_of(model, test, validation, videos, settings.candidates)


def _model(
    settings: StudySettings,
    tuned: FinetuneSettings,
    described: Described,
    store: FrameStore | None,
    session: Session,
    cell: Cell,
) -> VideoTextModel:
    """The finetuned model; where nothing is to be finetuned, that which was pretrained."""
    if not settings.finetune.steps:
        session.folder.begin(tuned, ())
        model = extend_model(open_model(tuned.init, tuned.model.towers.pretrained), tuned.model)
        return model.to(session.ranks.device).eval()
    opened = open_for_training(settings.real.benchmark or "folder", tuned, store)
    pairs = pairs_of(opened.located, "train", tuned.prompt)
    FinetuneRun(tuned, opened, store, pairs[: cell.pairs], session, described).train()
    return load_model(session.folder.path / FINAL).to(session.ranks.device)


def _real(
    settings: StudySettings, model: VideoTextModel, evaluator: Evaluator, autocast: torch.dtype | None
) -> dict[str, Answers]:
    """Of a benchmark that has no groups: whether a query finds its video among all, and which queries are of one video."""
    row = evaluator.evaluate(model, autocast=autocast).rows[0]
    assert isinstance(row, Retrieval), "a study is of retrieval"
    found = row.text_to_video
    answers = {"coarse": _hits(found.hits(1)) | {"clusters": found.clusters.tolist()}}
    if model.reranker is not None:
        staged = evaluate_stages(model, evaluator, None, depth=settings.candidates, autocast=autocast)
        assert staged is not None
        depth = min(settings.candidates, staged.sweep.videos)
        level = next(level for level in staged.sweep.levels if level.depth == depth)
        answers["fine"] = _hits(level.ranks.hits(1))
    return answers


def _hits(hits: NDArray[np.bool_]) -> Answers:
    return {"all": hits.astype(np.float64).tolist()}


def _evaluator(
    tuned: FinetuneSettings,
    tokenizer: Tokenizer,
    opened: Opened,
    store: FrameStore | None,
    session: Session,
    split: SplitName,
) -> Evaluator:
    return benchmark_evaluator(
        opened.located,
        split,
        tuned,
        tokenizer=tokenizer,
        together=session.together,
        batch=_AT_ONCE,
        workers=tuned.workers,
        store=store,
    )
