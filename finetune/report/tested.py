"""What a model is worth on benchmarks: the tables of results.json, as `finetune` and `evaluate` write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stillreel.animate.preview.guarded import escape
from stillreel.finetune.evaluation.results import RESULTS, read_results
from stillreel.pretrain.evaluation.results import DEPTHS, TOPS

Results = Mapping[str, Any]

_WAYS = {"t2v": "text to video", "v2t": "video to text"}
_RECALLS = {**{f"r{depth}": f"R@{depth}" for depth in DEPTHS}, "mdr": "MdR", "mnr": "MnR"}
_TOPS = {f"top{top}": f"top-{top}" for top in TOPS}


def read_tested(places: Sequence[Path]) -> list[Results]:
    """The results in these files, or in these OUTs of runs. RequestError where there are none."""
    return [read_results(str(place / RESULTS if place.is_dir() else place)) for place in places]


def render_tested(results: Results) -> str:
    """HTML: the benchmark, its table, how it was asked."""
    kind = _RECALLS if any("t2v" in row for row in results["rows"]) else _TOPS
    names = list(kind.values())
    head = ["", *([""] if kind is _RECALLS else []), *names, f"{names[0]}, 95 %", "queries", "missed"]
    rows = [list(_cells(*one, kind)) for row in results["rows"] for one in _ways(row)]
    lines = [_line("th", head), *(_line("td", cells) for cells in rows)]
    title = " ".join(part for part in (results["benchmark"], results["variant"], results["split"]) if part)
    counts = ", ".join(f"{count:,} {name}" for name, count in results["counts"].items())
    model = results["checkpoint"].get("path", "of towers alone")
    settings = f"settings {results['settings_digest'][:12]}"
    said = "; ".join((f"Protocol: {results['protocol']}", counts, "ties at mid-rank", f"model {model}", settings))
    return (
        f'<h3>{escape(title)}</h3><div class="scroll"><table class="figures">{"".join(lines)}</table></div>'
        f'<p class="protocol">{escape(said)}</p>'
    )


def _ways(row: Results) -> Iterator[tuple[list[str], Results]]:
    """What stands before a row's figures, and they."""
    if any(way in row for way in _WAYS):
        yield from (([row["label"], name], row[way]) for way, name in _WAYS.items() if way in row)
    else:
        yield [row["label"]], row


def _cells(before: list[str], found: Results, kind: Mapping[str, str]) -> Iterator[str]:
    yield from before
    yield from (f"{found[name]:.1f}" for name in kind)
    low, high = found["intervals"][next(iter(kind))]
    yield f"{low:.1f} to {high:.1f}"
    yield f"{found['queries']:,}"
    yield f"{len(found['missed']):,}"


def _line(tag: str, cells: Sequence[str]) -> str:
    return f"<tr><th>{escape(cells[0])}</th>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells[1:])}</tr>"
