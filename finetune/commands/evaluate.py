"""`stillreel evaluate BENCHMARK checkpoint=C`: the table of any model on any benchmark, without training."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path

import torch

from stillreel.configs import RequestError
from stillreel.configs.benchmark import USUAL
from stillreel.configs.finetune import EvaluateSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.data.asked import open_asked, store_asked
from stillreel.finetune.evaluation.benchmark import benchmark_evaluator
from stillreel.finetune.evaluation.paired import compare_with
from stillreel.finetune.evaluation.results import (
    about_checkpoint,
    publish,
    read_results,
    results_of,
    table_of,
)
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.data.tokens import tokenizer_of
from stillreel.pretrain.engine.distributed import init_distributed
from stillreel.pretrain.engine.doubts import of_untrained
from stillreel.pretrain.engine.parallel import autocast_of
from stillreel.pretrain.engine.start import check_size, fit_clips
from stillreel.pretrain.evaluation.two_stage.plot import draw_sweep
from stillreel.pretrain.evaluation.two_stage.staged import Staged, evaluate_stages
from stillreel.pretrain.model import VideoTextModel, build_model
from stillreel.pretrain.run.opening import Described, describe, describe_fresh, model_folder, open_model

_log = logging.getLogger(__name__)
_PATIENCE_S = 1800.0


def run(name: str, settings: EvaluateSettings) -> int:
    """Print the table, write OUT/results.json if OUT is given. Returns 0."""
    if settings.compare:
        read_results(settings.compare)  # fails before hours of work, not behind them
    described = _described(settings)
    settings = fit_clips(settings, described, USUAL.get(name, {}))
    check_size(settings.size, described.towers)
    store = store_asked(settings)
    opened = open_asked(name, settings, (settings.split,), store)
    with init_distributed(settings.device) as ranks:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        model = _model(settings).to(ranks.device)
        if ranks.is_first:
            for doubt in () if settings.checkpoint else of_untrained(model):
                _log.warning(doubt)
            print(opened.report(), file=sys.stderr, flush=True)
        autocast = autocast_of(settings, ranks.device)
        evaluator_of = partial(
            benchmark_evaluator,
            opened.located,
            settings=settings,
            tokenizer=tokenizer_of(described.towers),
            together=Together(ranks.ranks, _PATIENCE_S),
            batch=settings.batch,
            workers=settings.workers,
            store=store,
        )
        evaluator = evaluator_of(split=settings.split)
        result = evaluator.evaluate(model, autocast=autocast)
        staged = None
        if settings.rerank:
            located = opened.located
            is_whole = "validation" in located.benchmark.splits and not located.missing.get("validation")
            validation = evaluator_of(split="validation") if is_whole and settings.split != "validation" else None
            staged = evaluate_stages(model, evaluator, validation, depth=settings.rerank, autocast=autocast)
        if not ranks.is_first:
            return 0
        towers = settings.model.towers
        about = (
            about_checkpoint(model_folder(settings.checkpoint))
            if settings.checkpoint
            else {"towers": towers.model_dump(mode="json")}
        )
        results = results_of(opened, settings.split, evaluator.protocol, result, settings, about)
        print(table_of(evaluator.protocol, result))
        if staged is not None:
            print(staged.table(settings.split))
            results |= {"two_stage": staged.sweep.to_json()}
        if settings.out:
            print(f"{publish(Path(settings.out), results)}: every query's rank, and how it was asked", file=sys.stderr)
            if staged is not None:
                _draw(staged, f"{opened.benchmark.name} {settings.split}", Path(settings.out))
        if settings.compare:
            print(compare_with(settings.compare, results))
    return 0


def _described(settings: EvaluateSettings) -> Described:
    if settings.checkpoint:
        return describe(settings.checkpoint, settings.peer, settings.model.towers.pretrained)
    towers = settings.model.towers
    if not towers.pretrained and not towers.name.startswith(("local-dir:", "hf-hub:")):
        raise RequestError(
            "nothing to evaluate: give checkpoint=, or a CLIP, such as model.towers.name=ViT-B-32-quickgelu "
            "model.towers.pretrained=openai"
        )
    return describe_fresh(settings.model)


def _model(settings: EvaluateSettings) -> VideoTextModel:
    """The model that is to be evaluated, on the CPU."""
    if settings.checkpoint:
        return open_model(settings.checkpoint, settings.model.towers.pretrained, settings.peer)
    return build_model(settings.model)


def _draw(staged: Staged, asked: str, out: Path) -> None:
    title = f"R@1, text to video, {asked}: K candidates re-ranked"
    Folder(str(out)).publish("rerank.svg", draw_sweep(staged.sweep, title).encode())
    print(f"{out / 'rerank.svg'}: R@1 against K", file=sys.stderr)
