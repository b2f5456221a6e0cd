"""A peer's file, imported by the command, in the evaluator: fed the published code's inputs it gives the published scores, and
the ranks that these have when they are counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stillreel.cli import main
from stillreel.configs.finetune import ProtocolSettings
from stillreel.configs.video import VideoSettings
from stillreel.finetune.benchmarks import Benchmark, Located, Protocol, Split, Video
from stillreel.finetune.data.clips import Clip
from stillreel.finetune.evaluation.benchmark import BenchmarkClips, benchmark_protocol
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.data.tokens import CLIPS_OWN
from stillreel.pretrain.evaluation.evaluator import EncodedSet, Evaluator
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures
from tests.making import SHARED, needs_shared
from tests.parity import Reference
from tests.pretrain.containers import WRITERS

pytestmark = needs_shared

# Family by family: the file it is published in, and the name of the reference scores.
CASES = [
    ("clip4clip_meanP", "torch", "out/sim"),
    ("clip4clip_seqTransf", "training", "out/sim"),
    ("clip4clip_seqLSTM", "legacy", "out/sim"),
    ("clip4clip_tightTransf", "torch", "out/sim"),
    ("clip2video_full", "torch", "out/sim_fixedmask"),
    ("stan_retrieval", "mmengine", "out/sim"),
    ("mugstan_retrieval", "mmengine", "out/sim_mug_frame_token_simple"),
]


class ReferenceEvaluator(Evaluator):
    """The evaluator, behind its decoder and its tokenizer: it has the reference's frames and token ids instead."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self.scores = torch.empty(0)
        frames, _ = reference.video
        videos = tuple(Video(f"video{number}", (f"caption {number}",)) for number in range(len(frames)))
        splits = {"test": Split("test", videos)}
        benchmark = Benchmark("folder", "", Protocol("reference", "retrieval", "single"), splits)  # type: ignore[arg-type]
        protocol = benchmark_protocol(Located(benchmark, {}, {}, ""), "test", ProtocolSettings(), CLIPS_OWN)
        super().__init__(BenchmarkClips([Clip(one.id, None) for one in videos], VideoSettings(), 1, 0, None), protocol,
                         together=Together(1, 10))  # fmt: skip

    def _encode(self, model: VideoTextModel, autocast: torch.dtype | None, *, fine: bool = False) -> EncodedSet:
        video, text = model.encode_video(*self._reference.video), model.encode_text(*self._reference.text)
        assert self.protocol.matches is not None
        return EncodedSet(video, text, self.protocol.matches, torch.ones(len(video.pooled), dtype=torch.bool), ())

    def _scores(self, model: VideoTextModel, video: VideoFeatures, text: TextFeatures) -> Tensor:
        self.scores = super()._scores(model, video, text)
        return self.scores


def ranks_by_hand(scores: np.ndarray) -> list[float]:
    """Of each row's own column: 1 + those above it + half of those beside it."""
    found = []
    for number, row in enumerate(scores):
        others = np.delete(row, number)
        found.append(1 + float((others > row[number]).sum()) + 0.5 * float((others == row[number]).sum()))
    return found


@pytest.mark.parametrize(("kind", "container", "name"), CASES, ids=[kind for kind, *_ in CASES])
def test_an_imported_file_has_the_published_scores_and_their_ranks_in_the_evaluator(
    kind: str, container: str, name: str, tmp_path: Path
) -> None:
    reference = Reference(SHARED / "reference" / kind / "open.npz")
    file = WRITERS[container](tmp_path / "published.bin", reference.weights())
    # What a file cannot tell: as its code has it, with each clip's own mask, which is all that ranks can be computed from.
    options = reference.options("own_mask" if reference.family == "clip2video" else "peer").model_dump()
    words = [f"peer.{key}={value}" for key, value in options.items()]
    assert main(["import-checkpoint", str(file), str(tmp_path / "model"), *words]) == 0

    evaluator = ReferenceEvaluator(reference)
    result = evaluator.evaluate(load_model(tmp_path / "model"))
    published = reference.arrays[name]
    assert (evaluator.scores - published).abs().max() <= 1e-5
    matrix = published.numpy()
    gaps = np.abs(matrix[:, :, None] - matrix[:, None, :])[:, ~np.eye(len(matrix), dtype=bool)]
    assert gaps.min() > 1e-5, "ranks are only told by scores that differ by more than the tolerance"
    (raw, *_) = result.rows
    assert raw.text_to_video.values.tolist() == ranks_by_hand(matrix)  # type: ignore[union-attr]
    assert raw.video_to_text.values.tolist() == ranks_by_hand(matrix.T)  # type: ignore[union-attr]
    by_hand = np.array(ranks_by_hand(matrix))
    assert result.metrics()["t2v_r1"] == pytest.approx(100 * (by_hand == 1).mean())
    assert result.metrics()["t2v_mnr"] == pytest.approx(by_hand.mean())
