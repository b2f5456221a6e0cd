"""How much faster the re-ranker scores a caption's candidates together than pair by pair, on one core of a CPU.

    python -m benchmarks.rerank

Time is that of the processor, the best of several runs. Weights and features are random: it changes neither time nor agreement.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from stillreel.configs.model import ModelSettings, RerankSettings
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, pick_rows
from stillreel.pretrain.model.initialize import initialize
from stillreel.pretrain.model.model import VideoTextModel
from stillreel.pretrain.model.pretrained import named_cfg
from stillreel.pretrain.model.towers import build_towers

CANDIDATES, FRAMES, WORDS = 50, 12, 32
SECONDS = 2.0  # of each measurement, at least


def main() -> None:
    torch.set_num_threads(1)
    print(f"{CANDIDATES} candidates of {FRAMES} frames, a caption padded to {WORDS} tokens; ms, and times faster")
    print(f"{'towers':<10}{'tokens':>7}{'one by one':>12}{'together':>18}{'clips read before':>20}{'difference':>12}")
    for name in ("tiny", "ViT-B-32"):
        torch.manual_seed(0)
        model = VideoTextModel(build_towers(named_cfg(name)), ModelSettings(rerank=RerankSettings(layers=4)))
        initialize(model)
        for count in (12, WORDS):  # of benchmarks' captions, on average; and as many as there may be
            print(f"{name:<10}{count:>7}" + compare(model.eval(), count))


@torch.no_grad()
def compare(model: VideoTextModel, count: int) -> str:
    """The line of a model and a caption of `count` tokens."""
    width, reranker = model.clip.text_projection.shape[1], model.needed_reranker()
    frames, words = torch.randn(CANDIDATES, FRAMES, width), torch.randn(1, WORDS, width)
    video = VideoFeatures(frames, torch.ones(CANDIDATES, FRAMES, dtype=torch.bool), frames.mean(dim=1), None)
    text = TextFeatures(words, torch.arange(WORDS)[None] < count, words[:, count - 1], None)
    clips, memory = torch.arange(CANDIDATES)[None], reranker.read(video)
    pairs = [pick_rows(video, slice(clip, clip + 1)) for clip in range(CANDIDATES)]
    alone, slow = best_of(lambda: torch.cat([model.rerank(clip, text) for clip in pairs])[None])
    fresh, together = best_of(lambda: reranker.candidates(video, text, clips))
    read, before = best_of(lambda: reranker.candidates(memory, text, clips))
    worst = max((alone - one).abs().max().item() for one in (fresh, read))
    times = "".join(f"{ms:>{width}.1f} ({slow / ms:>5.1f}x)" for ms, width in ((together, 9), (before, 11)))
    return f"{slow:>12.1f}{times}{worst:>12.1e}"


def best_of(step: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What it gives, and the milliseconds that it takes."""
    found, taken, start = step(), float("inf"), time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        begun = time.process_time()
        step()
        taken = min(taken, time.process_time() - begun)
    return found, 1000 * taken


if __name__ == "__main__":
    main()
