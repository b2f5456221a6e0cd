"""`stillreel pretrain PRESET`, and `torchrun -m stillreel pretrain PRESET`: clip shards in, checkpoints out.

OUT/checkpoints/step-N/     a model and what only training needs        OUT/run.json        settings and versions
OUT/final/                  the model at the end                        OUT/metrics.jsonl   how it went
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from stillreel.configs.pretrain import PretrainSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.pretrain.data.tokens import tokenizer_of
from stillreel.pretrain.engine.distributed import Ranks
from stillreel.pretrain.engine.loop import Metrics
from stillreel.pretrain.engine.parallel import autocast_of
from stillreel.pretrain.engine.prefetcher import DeviceBatch, DevicePrefetcher
from stillreel.pretrain.engine.session import Session, Training, open_session, run_training
from stillreel.pretrain.engine.start import check_size, resolve_start
from stillreel.pretrain.evaluation import Evaluator, held_out_evaluator
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.normalize import Pixels
from stillreel.pretrain.run.opening import Described
from stillreel.shards.stream.stream import Blend, State, open_blend


def run(_preset: str, settings: PretrainSettings) -> int:
    """Train to the last step, from the latest checkpoint in OUT if there is one. Returns 0 when it is reached."""
    settings, described = resolve_start(settings)
    if not settings.curriculum:
        check_size(settings.size, described.towers)
    blend = open_blend(settings.data)
    held_out = open_blend(settings.eval.data) if settings.eval.data else None
    with open_session(settings) as session:
        evaluate = None
        if held_out is not None:
            autocast = autocast_of(settings, session.ranks.device)
            evaluate = partial(_evaluate, _evaluator(settings, held_out, session), autocast)
        training = Training(
            seed=settings.seed,
            samples=sum(corpus.samples for corpus in blend.corpora),
            order=("seed", "lanes", "window"),
            start=blend.start(settings.order(), 0, settings.batch),
            feed=partial(_feed, settings, described, blend, session.ranks),
            description=blend.describe(),
            evaluate_every=settings.eval.every,
            evaluate=evaluate,
        )
        run_training(session, settings, training)
    return 0


def _feed(
    settings: PretrainSettings, described: Described, blend: Blend, ranks: Ranks, state: State, steps: int
) -> Iterator[DeviceBatch]:
    loader = ClipLoader(
        blend,
        settings,
        Share(settings.batch, ranks.rank, ranks.ranks),
        workers=settings.workers,
        state=state,
        steps=steps,
        pin_memory=ranks.device.type == "cuda",
        tokenizer=tokenizer_of(described.towers),
    )
    dtype = autocast_of(settings, ranks.device) or torch.float32
    pixels = Pixels.told_by(described.preprocess)
    return iter(DevicePrefetcher(loader, ranks.device, dtype=dtype, pixels=pixels))


def _evaluator(settings: PretrainSettings, held_out: Blend, session: Session) -> Evaluator:
    return held_out_evaluator(
        held_out,
        settings,
        together=session.together,
        batch=min(64, max(settings.batch // session.ranks.ranks, 1)),
        limit=settings.eval.clips,
        workers=settings.workers,
        pin_memory=session.ranks.device.type == "cuda",
    )


def _evaluate(evaluator: Evaluator, autocast: torch.dtype | None, model: VideoTextModel) -> Metrics:
    found = evaluator.evaluate(model, autocast=autocast)
    return {**found.metrics(), "missing": len(found.damaged), "clips_per_s": found.clips_per_s}
