"""`stillreel evaluate BENCHMARK checkpoint=C`: the table of any model on any benchmark, without training."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from configs.finetune import EvaluateSettings
from finetune.asked import open_asked, store_asked
from finetune.examine import Examiner
from finetune.results import about_checkpoint, compare_with, publish, read_results, results_of, table_of
from finetune.weights import check_size, load_any, model_folder
from pretrain.data.together import Together
from pretrain.model.towers import model_cfg_of
from pretrain.parallel import autocast_of
from pretrain.ranks import joined

_PATIENCE_S = 1800.0


def run(name: str, settings: EvaluateSettings) -> int:
    """Print the table, write OUT/results.json if OUT is given. Returns 0."""
    if settings.compare:
        read_results(settings.compare)  # fails before hours of work, not behind them
    store = store_asked(settings)
    opened = open_asked(name, settings, (settings.split,), store)
    with joined(settings.device) as ranks:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        model = load_any(settings).to(ranks.device)
        check_size(settings.video.size, model_cfg_of(model.clip))
        if ranks.is_first:
            print(opened.report(), file=sys.stderr, flush=True)
        examiner = Examiner(
            opened.located,
            settings.split,
            settings,
            batch=settings.batch,
            workers=settings.workers,
            together=Together(ranks.ranks, _PATIENCE_S),
            store=store,
        )
        outcome = examiner.examine(model, autocast=autocast_of(settings.engine, ranks.device))
        if not ranks.is_first:
            return 0
        towers = settings.model.towers
        about = (
            about_checkpoint(model_folder(settings.checkpoint))
            if settings.checkpoint
            else {"towers": towers.model_dump(mode="json")}
        )
        results = results_of(opened, settings.split, examiner, outcome, settings, about)
        print(table_of(examiner, outcome))
        if settings.out:
            print(f"{publish(Path(settings.out), results)}: every query's rank, and how it was asked", file=sys.stderr)
        if settings.compare:
            print(compare_with(settings.compare, results, outcome))
    return 0
