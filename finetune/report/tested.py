"""What models are worth on benchmarks: the tables of results.json, and how runs differ on the same queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from stillreel.animate.preview.guarded import escape
from stillreel.configs import RequestError
from stillreel.finetune.evaluation.paired import pair_results
from stillreel.finetune.evaluation.results import RESULTS, read_results
from stillreel.finetune.report.told import WAYS, Benchmarked, Results, Told, row, section, table
from stillreel.pretrain.evaluation import Difference
from stillreel.pretrain.evaluation.results import DEPTHS, TOPS

_RETRIEVAL = {**{f"r{depth}": f"R@{depth}" for depth in DEPTHS}, "mdr": "MdR", "mnr": "MnR"}
_RECOGNITION = {f"top{top}": f"top-{top}" for top in TOPS}
_CHOICE = {"accuracy": "accuracy"}  # which is a recall at 1 of each question's own options


def read_tested(places: Mapping[Path, str]) -> list[Benchmarked]:
    """The results in these files, or OUTs of runs, by whose they are. RequestError where there are none."""
    files = {place / RESULTS if place.is_dir() else place: name for place, name in places.items()}
    return [Benchmarked(name, read_results(str(file))) for file, name in files.items()]


def title_of(results: Results) -> str:
    """The benchmark and its split, as they begin the protocol."""
    split = results["split"]
    return f"{results['protocol'].partition(f', {split}:')[0]}, {split}"


def render_tested(told: Told) -> str:
    """Each one's table, and how it was asked."""
    if not told.tested:
        return ""
    alone = told.single and [one.name for one in told.tested] == [told.single.name]
    return section("tested", "Benchmarks", "".join(_benchmark(one, "" if alone else one.name) for one in told.tested))


def render_paired(told: Told) -> str:
    """Of several on the same queries: by how much each differs from the first. What cannot be paired is said."""
    if len(told.runs) < 2 and len(told.tested) < 2:
        return ""
    tables, left_out = [], []
    for one in told.tested[1:]:
        first = told.tested[0]
        try:
            pairing = pair_results(first.results, one.results)
        except RequestError as error:
            left_out.append(f"{one.name} is not paired with {first.name}: {error}.")
        else:
            tables.append(_pairing(first, one, pairing))
    known = {one.name for one in told.tested}
    left_out += [
        f"{run.name} is not paired: it has no {RESULTS}, which finetune writes when it has tested."
        for run in told.runs
        if run.name not in known
    ]
    note = (
        "Raw scores, query by query; in brackets 95 % of a bootstrap over videos. Bold where the interval leaves out 0. Not "
        "corrected for how many are looked at."
    )
    body = f'<p class="soft">{note}</p>' * bool(tables) + "".join(tables)
    return section(
        "paired", "Paired differences", body + "".join(f'<p class="none">{escape(one)}</p>' for one in left_out)
    )


def _benchmark(tested: Benchmarked, whose: str) -> str:
    results = tested.results
    kind = _kind(results)
    names = list(kind.values())
    head = ["", *([""] if kind is _RETRIEVAL else []), *names, f"{names[0]}, 95 %", "queries", "missed"]
    rows = [row(*one) for told in results["rows"] for one in _rows(told, kind)]
    counts = ", ".join(f"{count:,} {name}" for name, count in results["counts"].items())
    model = results["checkpoint"].get("path", "of towers alone")
    settings = f"settings {results['settings_digest'][:12]}"
    said = "; ".join((f"Protocol: {results['protocol']}", counts, "ties at mid-rank", f"model {model}", settings))
    title = title_of(results) + f": {whose}" * bool(whose)
    return f'<h3>{escape(title)}</h3>{table(head, rows)}<p class="protocol">{escape(said)}</p>'


def _kind(results: Results) -> Mapping[str, str]:
    """The figures that its task has."""
    first = results["rows"][0]
    if "accuracy" in first:
        return _CHOICE
    return _RETRIEVAL if "t2v" in first or "v2t" in first else _RECOGNITION


def _rows(told: Results, kind: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """What stands before a row's figures, and they."""
    if kind is not _RETRIEVAL:
        yield told["label"], _cells(told, kind)
        return
    for way, name in WAYS.items():
        if way in told:
            yield told["label"], [name.lower(), *_cells(told[way], kind)]


def _cells(found: Results, kind: Mapping[str, str]) -> list[str]:
    low, high = found["intervals"][next(iter(kind))]
    counts = (f"{found['queries']:,}", f"{len(found['missed']):,}")
    return [*(f"{found[name]:.1f}" for name in kind), f"{low:.1f} to {high:.1f}", *counts]


def _pairing(first: Benchmarked, other: Benchmarked, pairing: Mapping[str, Mapping[str, Difference]]) -> str:
    kind = _kind(other.results)
    at = "R@" if kind is _RETRIEVAL else "top-"
    labels = {"mnr": "MnR", **({"r1": "accuracy"} if kind is _CHOICE else {})}
    names = list(next(iter(pairing.values())))
    head = [labels.get(name, f"{at}{name[1:]}") for name in names]
    rows = []
    for way, figures in pairing.items():
        cells = "".join(_difference(figures[name]) for name in names)
        rows.append(f'<tr><th scope="row">{escape(WAYS.get(way, ""))}</th>{cells}<td>{figures["r1"].p:.4f}</td></tr>')
    title = f"{other.name} less {first.name}, {title_of(other.results)}"
    return f"<h3>{escape(title)}</h3>{table(['', *head, f'p of {head[0]}'], rows)}"


def _difference(one: Difference) -> str:
    low, high = one.interval
    told = f"{one.value:+.1f} <small>({low:+.1f} to {high:+.1f})</small>"
    return f"<td><b>{told}</b></td>" if low > 0 or high < 0 else f"<td>{told}</td>"
