"""Evaluations of held-out sets: as a module, those of a rank under real torchrun; imported, what starts it, and the cases."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch

from stillreel.configs import StillreelError
from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.evaluation import EvaluationResult, Retrieval, evaluator, held_out_evaluator
from stillreel.pretrain.objectives.gather import rank_count
from stillreel.shards.stream.stream import open_blend
from tests.making import torchrun
from tests.pretrain.zoo import shaken

MODULE = "tests.pretrain.evaluation.rank_scorer"
VIEW = {"frames": 3, "size": 64}
BATCH, CHUNK = 4, 8

# By name: the model of the zoo, the data settings, and what `held_out_evaluator` is given. Captions of 4 tokens are equal.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vectors": ("mean", {}, {}),
    "equal captions": ("mean", {"context_length": 4}, {}),
    "aligned vectors, a part": ("clip2video", {}, {"limit": 9}),
    "fewer clips than ranks": ("mean", {}, {"limit": 1}),
    "words with frames": ("mug", {"context_length": 6}, {"limit": 13}),
    "every pair": ("tight", {"context_length": 4}, {"limit": 13}),
    "rendered on the device": ("stan", {"render": "device"}, {"limit": 10}),
    "workers": ("mean", {}, {"workers": 2}),
    "workers, equal captions, on the device": ("mean", {"render": "device", "context_length": 4}, {"workers": 2}),
    "two sets": ("mean", {}, {"batch": 5}),
    "half precision": ("clip2video", {}, {"limit": 10}),
    "damage": ("mean", {"max_bad": 1, "context_length": 4}, {}),
    "too much damage": ("mean", {"max_bad": 0}, {}),
    "storage that fails one rank": ("mean", {"attempts": 1}, {}),
}


def data_of(case: str, home: Path) -> str:
    """Sets that the tests have written."""
    names = {"two sets": "small,whole", "damage": "damaged", "too much damage": "damaged"}
    name = "unreadable" if "storage" in case else names.get(case, "whole")
    return ",".join(str(home / one) for one in name.split(","))


def evaluate(case: str, home: Path) -> EvaluationResult:
    kind, settings, given = CASES[case]
    half = case == "half precision"
    model = copy.deepcopy(shaken(kind))
    blend, data = open_blend(data_of(case, home)), DataSettings.resolve({**VIEW, **settings})
    held_out = held_out_evaluator(blend, data, together=Together(rank_count(), 60), **{"batch": BATCH, **given})
    return held_out.evaluate(model if half else model.double(), autocast=torch.bfloat16 if half else None)


def told_by(case: str, home: Path) -> dict[str, Any]:
    """The result, or the error; without the time that it took."""
    try:
        found = evaluate(case, home)
    except StillreelError as error:
        return {"error": type(error).__name__, "said": str(error)}
    assert found.clips_per_s > 0
    (retrieval,) = found.rows
    assert isinstance(retrieval, Retrieval)
    return retrieval.to_json()


def run_ranks(home: Path, ranks: int) -> list[dict[str, dict[str, Any]]]:
    """What each rank has found in all cases."""
    said = torchrun(MODULE, [str(home)], ranks, timeout=400)
    assert said.returncode == 0, said.stderr[-4000:]
    return [json.loads((home / f"{ranks}-{rank}.json").read_text()) for rank in range(ranks)]


if __name__ == "__main__":
    import torch.distributed as dist

    torch.set_num_threads(1)
    evaluator._VECTORS = evaluator._PAIRS = CHUNK
    dist.init_process_group("gloo")
    _home, _rank, _ranks = Path(sys.argv[1]), dist.get_rank(), dist.get_world_size()
    _told = {_case: told_by(_case, _home) for _case in CASES}
    (_home / f"{_ranks}-{_rank}.json").write_text(json.dumps(_told))
    dist.destroy_process_group()
