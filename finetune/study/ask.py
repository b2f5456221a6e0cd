"""The half of a cell that needs torch: finetune on the benchmark, then ask the model that came of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.study import StudySettings
from stillreel.finetune.commands.finetune import FinetuneRun, open_for_training
from stillreel.finetune.data.asked import open_asked, store_asked
from stillreel.finetune.data.loader import pairs_of
from stillreel.finetune.evaluation.benchmark import benchmark_evaluator
from stillreel.finetune.study.grid import Cell
from stillreel.finetune.study.score import answers_of
from stillreel.finetune.study.write import videos_of_split
from stillreel.pretrain.engine.parallel import autocast_of
from stillreel.pretrain.engine.session import open_session
from stillreel.pretrain.engine.start import check_size, resolve_start
from stillreel.pretrain.evaluation.evaluator import EncodedSet
from stillreel.pretrain.evaluation.results import Retrieval
from stillreel.pretrain.model import load_model
from stillreel.pretrain.run.folder import FINAL

_AT_ONCE = 64  # videos that are encoded


def finetune_and_ask(settings: StudySettings, asked: FinetuneSettings, cell: Cell) -> dict[str, Any]:
    """By stage and measure what became of each test query, in the order of the test split."""
    tuned, described = resolve_start(asked)
    check_size(tuned.size, described.towers)
    store = store_asked(tuned)
    name = settings.real.benchmark or "folder"
    opened = open_for_training(name, tuned, store)
    pairs = pairs_of(opened.located, "train", tuned.prompt)
    if settings.real.benchmark:
        pairs = pairs[: cell.pairs]
    with open_session(tuned) as session:
        run = FinetuneRun(tuned, opened, store, pairs, session, described)
        if settings.real.benchmark:
            row = run.work().rows[0]
            assert isinstance(row, Retrieval)
            return {"coarse": {"all": row.text_to_video.hits(1).astype(np.float64).tolist()}}
        run.train()
        model = load_model(session.folder.path / FINAL).to(session.ranks.device)
        whole = open_asked(name, tuned, ("validation", "test"), store)

        def encoded(split: Any) -> EncodedSet:
            evaluator = benchmark_evaluator(
                whole.located,
                split,
                tuned,
                together=session.together,
                batch=_AT_ONCE,
                workers=tuned.workers,
                store=store,
            )
            found = evaluator.encode(model, autocast=autocast_of(tuned, session.ranks.device))
            assert found is not None, "a study runs on one rank"
            return found

        videos = videos_of_split(settings.world, "test")
        ids = [video.id for video in whole.benchmark.splits["test"].videos]
        assert ids == [video.id for video in videos], "the tables were written from these"
        return answers_of(model, encoded("test"), encoded("validation"), videos, settings.candidates)
