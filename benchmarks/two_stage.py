"""What the second stage buys on the demo's benchmark: figures, cost and their plot, from coarse alone to full interaction.

    python -m benchmarks.two_stage CHECKPOINT TEST VALIDATION [frames=4] [size=64] [depth=50] [plot=FILE.svg]

TEST and VALIDATION are data sets of held-out clips: the weight of the fusion is chosen on the second. Such ones are made by

    stillreel demo out=demo                                                 trains too; without a re-ranker
    stillreel pretrain demo data=demo/clips eval.data=demo/clips-heldout out=run model.rerank.layers=4 objective.matching=1
    stillreel demo out=other seed=1 stills=2100 heldout=1000                1,000 others: other/clips-heldout

One thread. Times are by the clock, of both stages for all queries, from features on: the fine stage reads each clip once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch

from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data.tokens import CLIPS_OWN
from stillreel.pretrain.evaluation import Matches
from stillreel.pretrain.evaluation.held_out import HeldOutBatch, HeldOutDataset, choose_samples
from stillreel.pretrain.evaluation.two_stage.plot import draw_sweep
from stillreel.pretrain.evaluation.two_stage.sweep import Sweep, choose_weight, sweep_depths
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures
from stillreel.pretrain.model.normalize import encode_frames
from stillreel.shards.stream.stream import open_blend

_BATCH = 50
_WORDS = 32


class Encoded(NamedTuple):
    """A data set of N clips as a model sees it. Clips of one caption are right for each other's."""

    video: VideoFeatures
    text: TextFeatures
    matches: Matches


def main(words: list[str]) -> None:
    checkpoint, *sets = (word for word in words if "=" not in word)
    options = {"frames": "4", "size": "64", "depth": "50", "plot": ""}
    options |= dict(word.split("=", 1) for word in words if "=" in word)
    torch.set_num_threads(1)
    model = load_model(checkpoint)
    settings = DataSettings(frames=int(options["frames"]), size=int(options["size"]), context_length=_WORDS)
    test, validation = (encode(model, one, settings) for one in sets)
    weight = choose_weight(model, *validation, depth=int(options["depth"]))
    for chosen, what in ((1.0, "fine scores alone"), (weight, f"fused: {weight:g} of the fine logit")):
        sweep = sweep_depths(model, *test, weight=chosen)
        print(f"\n{sets[0]}, {what} (weight chosen on {sets[1]})\n{sweep.table()}")
        print(compare_with_full(sweep, int(options["depth"])))
    if options["plot"]:
        title = f"R@1, text to video, {sweep.videos:,} clips of the demo's: K candidates re-ranked"
        Path(options["plot"]).write_text(draw_sweep(sweep, title), encoding="utf-8")


@torch.no_grad()
def encode(model: VideoTextModel, data: str, settings: DataSettings) -> Encoded:
    """Features of a data set."""
    blend = open_blend(data)
    clips = HeldOutDataset(blend, settings, choose_samples(blend, 0, 0), _BATCH)
    videos, texts, ids = [], [], []
    for number in range(len(clips)):
        batch = clips[number]
        assert isinstance(batch, HeldOutBatch) and batch.frames is not None
        whole = [row for row, good in enumerate(batch.whole) if good]
        tokens = CLIPS_OWN([batch.captions[row] for row in whole], _WORDS)
        videos.append(encode_frames(model, batch.frames[whole], torch.ones(len(whole), settings.frames)))
        texts.append(model.encode_text(tokens))
        ids.append(tokens)
    labels = torch.cat(ids).unique(dim=0, return_inverse=True)[1]
    video, text = (type(parts[0])(*map(_joined, zip(*parts, strict=True))) for parts in (videos, texts))
    return Encoded(video, text, Matches(labels, labels))


def compare_with_full(sweep: Sweep, depth: int) -> str:
    """What a depth keeps of full interaction, and of its time."""
    one, full = next(level for level in sweep.levels if level.depth == depth), sweep.levels[-1]
    shares = [100 * float(level.ranks.hits(1).mean()) for level in (one, full)]
    return (
        f"K={depth}: {100 * shares[0] / shares[1]:.1f} % of full interaction's R@1, "
        f"{one.seconds:.2f} of its {full.seconds:.2f} s: 1/{full.seconds / one.seconds:.1f}"
    )


def _joined(column: tuple[torch.Tensor | None, ...]) -> torch.Tensor | None:
    return None if column[0] is None else torch.cat([part for part in column if part is not None])


if __name__ == "__main__":
    main(sys.argv[1:])
