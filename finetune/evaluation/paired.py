"""Two results of the same queries, paired by query: by how much their figures differ, and how far that may be chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillreel.configs import RequestError
from stillreel.configs.system.claims import damage_of
from stillreel.finetune.evaluation.results import read_results
from stillreel.pretrain.evaluation import Difference, Ranks, compare

Results = Mapping[str, Any]

_ASKED = ("benchmark", "variant", "split", "queries_digest")


def pair_results(first: Results, second: Results) -> dict[str, dict[str, Difference]]:
    """The second one's raw figures less the first one's, by name (r1, r5, r10, mnr; of multi-choice r1, mnr) for each way:
    t2v and v2t, or "" where there is one.

    RequestError, in words without a name, where they were not asked the same.
    """
    for key in _ASKED:
        if first.get(key) != second.get(key):
            what = (
                "other videos or captions" if key == _ASKED[-1] else f"{key} {first.get(key)!r} and {second.get(key)!r}"
            )
            raise RequestError(f"not the same queries ({what})")
    with damage_of("results.json is not what an evaluation writes"):
        one, other = first["rows"][0], second["rows"][0]
        ways = [way for way in ("t2v", "v2t") if way in one and way in other]
        depths = (1,) if "accuracy" in other else (1, 5, 10)
        found = {}
        for way in ways or [""]:
            before, after = (
                _ranks(row[way] if way else row, results, way) for row, results in ((one, first), (other, second))
            )
            found[way] = compare(before, after, depths)
        return found


def compare_with(path: str, results: Results) -> str:
    """A paired test of these results against those in a file, a line a figure. RequestError when they answer other queries."""
    try:
        found = pair_results(read_results(path), results)
    except RequestError as error:
        raise RequestError(f"compare={path}: {error}") from None
    lines = [f"this less {path}, paired by query (95 % interval, p of no difference):"]
    for way, figures in found.items():
        for name, one in figures.items():
            low, high = one.interval
            lines.append(f"  {way} {name}: {one.value:+.2f} ({low:+.2f} to {high:+.2f}), p {one.p:.4f}")
    return "\n".join(lines)


def _ranks(told: Mapping[str, Any], results: Results, way: str) -> Ranks:
    """Ranks as results.json has them; captions of one video are of one cluster."""
    values = np.array(told["ranks"], np.float64)
    clusters: NDArray[np.int64] = np.arange(len(values))
    if way == "t2v":
        captions = results["captions_of_videos"]
        clusters = np.repeat(np.arange(len(captions)), captions)
    if len(clusters) != len(values):
        raise ValueError(f"{len(values):,} ranks of {len(clusters):,} queries")
    missed = np.zeros(len(values), np.bool_)
    missed[told["missed"]] = True
    return Ranks(values, missed, clusters, int(told["items"]))
