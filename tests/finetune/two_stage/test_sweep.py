"""Two stages of real models: equal to one pair at a time, to full interaction at K = all; the weight, the table, the plot."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
import torch
from torch import Tensor

from stillreel.configs import RequestError
from stillreel.pretrain.evaluation import Matches, pairs, text_to_video
from stillreel.pretrain.evaluation.two_stage.plot import draw_sweep
from stillreel.pretrain.evaluation.two_stage.stages import coarse_scores, fine_scores, has_fine_stage, read_clips
from stillreel.pretrain.evaluation.two_stage.sweep import WEIGHTS, Sweep, choose_weight, sweep_depths
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures
from tests.pretrain.zoo import Inputs, inputs, shaken

CLIPS = 9
FINE = ("rerank", "rerank, patches", "rerank, clip2video", "rerank, mug", "mug", "mug, weighted", "tight")


@torch.no_grad()
def encoded(model: VideoTextModel, given: Inputs) -> tuple[VideoFeatures, TextFeatures]:
    return model.encode_video(given.frames), model.encode_text(given.token_ids)


def one_by_one(model: VideoTextModel, given: Inputs) -> Tensor:
    """Fine scores (A, B) by `model.score`, a pair a call, as logits."""
    fine = model.reranker is not None
    rows = [
        [model.score(given.frames[b : b + 1], None, given.token_ids[a : a + 1], None, fine=fine) for b in range(CLIPS)]
        for a in range(CLIPS)
    ]
    scores = torch.cat([torch.cat(row, dim=1) for row in rows])
    return scores if fine else model.logits(scores)


@pytest.mark.parametrize("kind", FINE)
def test_re_ranking_all_pairs_equals_the_model_s_score_one_by_one(kind: str) -> None:
    model, given = shaken(kind), inputs(CLIPS, 4, 9)
    video, text = encoded(model, given)
    expected = one_by_one(model, given)
    clips = torch.stack([torch.randperm(CLIPS, generator=torch.Generator().manual_seed(row)) for row in range(CLIPS)])
    for read in (video, read_clips(model, video)):
        assert torch.allclose(fine_scores(model, read, text, clips), expected.gather(1, clips), atol=2e-5)


@pytest.mark.parametrize("kind", ["mean", "tab", "clip2video", "stan", "rerank"])
def test_the_coarse_stage_of_vectors_is_the_model_s_similarity(kind: str) -> None:
    model, given = shaken(kind), inputs(CLIPS, 4, 9)
    video, text = encoded(model, given)
    with torch.no_grad():
        expected = model.logits(model.similarity(video, text))
    assert torch.allclose(coarse_scores(model, video, text), expected, atol=1e-4)


@pytest.mark.parametrize("kind", FINE)
def test_all_candidates_are_full_interaction_and_few_leave_the_others_as_they_were(kind: str) -> None:
    model, given = shaken(kind), inputs(CLIPS, 4, 9)
    video, text = encoded(model, given)
    sweep = sweep_depths(model, video, text, pairs(CLIPS), depths=(2, 5, 100))
    assert [level.depth for level in sweep.levels] == [0, 2, 5, CLIPS]
    assert [level.pairs for level in sweep.levels] == [0, 2 * CLIPS, 5 * CLIPS, CLIPS * CLIPS]
    full = text_to_video(one_by_one(model, given), pairs(CLIPS))
    assert sweep.levels[-1].ranks.values.tolist() == full.values.tolist()
    assert sweep.levels[-1].ceiling == 100
    for level in sweep.levels[1:]:
        beyond = sweep.coarse.ranks.values > level.depth
        assert (level.ranks.values[beyond] == sweep.coarse.ranks.values[beyond]).all()
        assert level.ceiling == pytest.approx(100 * (~beyond).mean())
        assert 100 * level.ranks.hits(1).mean() <= level.ceiling


def test_missing_videos_lower_the_ceiling_and_are_misses() -> None:
    model, given = shaken("rerank"), inputs(CLIPS, 4, 9)
    video, text = encoded(model, given)
    whole = torch.arange(CLIPS) != 3
    sweep = sweep_depths(model, video, text, pairs(CLIPS), depths=(2,), whole=whole)
    assert sweep.levels[-1].ceiling == pytest.approx(100 * (CLIPS - 1) / CLIPS)
    assert all(level.ranks.missed.tolist() == (~whole).tolist() for level in sweep.levels)


class Sharp:
    """Features for which the fine logit finds the right clip, and the coarse one does not; and the other way round."""

    def __init__(self, fine_is_right: bool) -> None:
        self.model, given = shaken("rerank"), inputs(CLIPS, 4, 9)
        self.video, self.text = encoded(self.model, given)
        clips = torch.arange(CLIPS).expand(CLIPS, -1)
        by = fine_scores(self.model, self.video, self.text, clips) if fine_is_right else self._coarse()
        # Right for each caption is whatever that stage finds first.
        self.matches = Matches(by.argmax(dim=1), torch.arange(CLIPS))

    def _coarse(self) -> Tensor:
        return coarse_scores(self.model, self.video, self.text)


def test_the_weight_is_that_which_finds_most_on_the_validation_split() -> None:
    for fine_is_right in (True, False):
        sharp = Sharp(fine_is_right)
        weight = choose_weight(sharp.model, sharp.video, sharp.text, sharp.matches, depth=CLIPS)
        assert weight in WEIGHTS
        told = sweep_depths(sharp.model, sharp.video, sharp.text, sharp.matches, weight=weight, depths=())
        assert told.levels[-1].ranks.hits(1).all()
        assert weight == 1 if fine_is_right else weight < 1


def swept() -> Sweep:
    model, given = shaken("rerank"), inputs(CLIPS, 4, 9)
    return sweep_depths(model, *encoded(model, given), pairs(CLIPS), depths=(2, 5), weight=0.5)


def test_table_and_json_tell_every_level() -> None:
    sweep = swept()
    lines = sweep.table().splitlines()
    assert [line.split()[0] for line in lines] == ["K", "coarse", "2", "5", "all"]
    assert lines[-1].endswith("81")
    told = sweep.to_json()
    assert told["weight"] == 0.5 and [one["k"] for one in told["levels"]] == [0, 2, 5, CLIPS]
    assert told["levels"][0]["gain"] == {"r1": 0.0, "interval": [0.0, 0.0], "p": 1.0}
    low, high = told["levels"][1]["gain"]["interval"]
    assert low <= told["levels"][1]["gain"]["r1"] <= high


def test_the_plot_is_an_svg_with_a_dot_a_level() -> None:
    sweep = swept()
    root = ET.fromstring(draw_sweep(sweep, "R@1 & <K>"))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}circle")) == 3
    words = [one.text for one in root.iter(f"{space}text")]
    assert {"R@1 & <K>", "K = 2", "K = 5", "K = all", "ceiling", "re-ranked", "coarse"} <= set(words)
    for dot in root.findall(f"{space}circle"):
        assert 0 < float(dot.attrib["cy"]) < 380 and 0 < float(dot.attrib["cx"]) < 720


def test_what_has_no_fine_stage_is_refused() -> None:
    model, given = shaken("mean"), inputs(CLIPS, 4, 9)
    assert not has_fine_stage(model)
    with pytest.raises(RequestError, match=r"no re-ranker; one with rerank.layers=4"):
        sweep_depths(model, *encoded(model, given), pairs(CLIPS))
    with pytest.raises(RequestError, match="depth=0"):
        choose_weight(shaken("rerank"), *encoded(shaken("rerank"), given), pairs(CLIPS), depth=0)
