"""`stillreel evaluate BENCHMARK checkpoint=C`: the table of any model on any benchmark, without training."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from stillreel.configs.finetune import EvaluateSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.benchmarks import SplitName
from stillreel.finetune.checkpoints.weights import check_size, load_any, model_folder
from stillreel.finetune.data.asked import open_asked, store_asked
from stillreel.finetune.evaluation.evaluator import Evaluator
from stillreel.finetune.evaluation.results import (
    about_checkpoint,
    compare_with,
    publish,
    read_results,
    results_of,
    table_of,
)
from stillreel.finetune.evaluation.two_stage import Staged, evaluate_stages
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.engine.distributed import joined
from stillreel.pretrain.engine.parallel import autocast_of
from stillreel.pretrain.evaluation.two_stage.plot import draw_sweep
from stillreel.pretrain.model.towers import model_cfg_of

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
        check_size(settings.size, model_cfg_of(model.clip))
        if ranks.is_first:
            print(opened.report(), file=sys.stderr, flush=True)
        together, autocast = Together(ranks.ranks, _PATIENCE_S), autocast_of(settings, ranks.device)

        def examiner_of(split: SplitName) -> Evaluator:
            return Evaluator(
                opened.located,
                split,
                settings,
                batch=settings.batch,
                workers=settings.workers,
                together=together,
                store=store,
            )

        examiner = examiner_of(settings.split)
        outcome = examiner.examine(model, autocast=autocast)
        staged = None
        if settings.rerank:
            staged = evaluate_stages(
                model, opened.located, settings.split, examiner_of, depth=settings.rerank, autocast=autocast
            )
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
        if staged is not None:
            print(staged.table())
            results |= {"two_stage": staged.sweep.to_json()}
        if settings.out:
            print(f"{publish(Path(settings.out), results)}: every query's rank, and how it was asked", file=sys.stderr)
            if staged is not None:
                _draw(staged, opened.benchmark.name, Path(settings.out))
        if settings.compare:
            print(compare_with(settings.compare, results, outcome))
    return 0


def _draw(staged: Staged, benchmark: str, out: Path) -> None:
    title = f"R@1, text to video, {benchmark} {staged.split}: K candidates re-ranked"
    Folder(str(out)).publish("rerank.svg", draw_sweep(staged.sweep, title).encode())
    print(f"{out / 'rerank.svg'}: R@1 against K", file=sys.stderr)
