"""Numbers of the runs: at the top of the page, and of their last evaluations on held-out clips."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from stillreel.animate.preview.guarded import escape
from stillreel.configs.system.progress import amount, duration
from stillreel.finetune.report.answers import Answers
from stillreel.finetune.report.history import History
from stillreel.finetune.report.told import WAYS, Run, Told, row, section, table
from stillreel.pretrain.evaluation.results import DEPTHS, TOPS

_RETRIEVAL = {**{f"r{depth}": f"R@{depth}" for depth in DEPTHS}, "mdr": "MdR", "mnr": "MnR"}
_OTHERS = {**{f"top{top}": f"top-{top}" for top in TOPS}, "accuracy": "accuracy"}


def render_totals(told: Told) -> str:
    """Tiles of the one run, or a table of several."""
    totals = [_totals(run.history) for run in told.runs]
    if told.single:
        tiles = (
            f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in totals[0]
        )
        return f'<div class="tiles">{"".join(tiles)}</div>'
    names = list(dict.fromkeys(name for one in totals for name, _ in one))
    found = [dict(one) for one in totals]
    rows = [row(run.name, [one.get(name, "") for name in names]) for run, one in zip(told.runs, found, strict=True)]
    return table(["", *names], rows)


def render_figures(told: Told) -> str:
    """The last evaluation of each run, with its protocol."""
    evaluated = [run for run in told.runs if run.history.evaluations]
    if not evaluated:
        who = "The run was not" if told.single else "None of the runs was"
        return section("figures", "Held-out figures", f'<p class="none">{who} evaluated on the way.</p>')
    body = "".join((_retrieval(told, evaluated), _others(told, evaluated)))
    said = [(f"{run.name}: " if not told.single else "") + _protocol(run) for run in evaluated]
    return section(
        "figures", "Held-out figures", body + "".join(f'<p class="protocol">{escape(one)}</p>' for one in said)
    )


def _retrieval(told: Told, runs: list[Run]) -> str:
    """Both ways of those that retrieve: what is to be compared in rows that follow each other."""
    rows = []
    for way, title in WAYS.items():
        for run in runs:
            last = run.history.evaluations[-1]
            if f"{way}_r1" in last:
                name = title if told.single else f"{title}, {run.name}"
                rows.append(row(name, [_told(last.get(f"{way}_{name}"), "{:.1f}") for name in _RETRIEVAL]))
            if told.single and run.chance:
                chance = [_told(run.chance.get(f"{way}_{name}"), "{:.1f}") for name in _RETRIEVAL]
                rows.append(row("chance", chance, "soft"))
    return table(["", *_RETRIEVAL.values()], rows) if rows else ""


def _others(told: Told, runs: list[Run]) -> str:
    """Of recognition and multi-choice."""
    lasts = [run.history.evaluations[-1] for run in runs]
    names = [name for name in _OTHERS if any(name in last for last in lasts)]
    rows = [
        row("last step" if told.single else run.name, [_told(last.get(name), "{:.1f}") for name in names])
        for run, last in zip(runs, lasts, strict=True)
        if any(name in last for name in names)
    ]
    return table(["", *map(_OTHERS.__getitem__, names)], rows) if rows else ""


def _totals(history: History) -> list[tuple[str, str]]:
    """(name, value) of what there is."""
    last = history.readings[-1] if history.readings else {}
    found = history.evaluations[-1] if history.evaluations else {}
    peak = max((value for _, value in history.curve("memory")), default=None)
    named = [
        ("steps", f"{history.steps:,}"),
        ("clips seen", _told(last.get("clips"), "{:,.0f}")),
        ("epochs", _told(last.get("epoch"), "{:.2f}")),
        ("loss", _told(last.get("loss"), "{:.3f}")),
        *((f"R@1, {name.lower()}", _told(found.get(f"{way}_r1"), "{:.1f}")) for way, name in WAYS.items()),
        ("clips/s (median)", _middle(history, "clips_per_s", "{:,.1f}")),
        ("data wait (median)", _middle(history, "data_wait", "{:.1%}")),
        ("MFU (median)", _middle(history, "mfu", "{:.1%}")),
        ("memory at the peak", "" if peak is None else amount(peak)),
        ("in steps", duration(history.seconds()) if history.readings else ""),
    ]
    return [(name, value) for name, value in named if value]


def _told(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _middle(history: History, name: str, form: str) -> str:
    values = [value for line in history.readings if (value := line.get(name)) is not None]
    return form.format(median(values)) if values else ""


def _protocol(run: Run) -> str:
    """What the figures are of, in a line."""
    return f"Protocol: {'; '.join(_parts_of_protocol(run))}"


def _parts_of_protocol(run: Run) -> Iterator[str]:
    settings, last = run.history.settings, run.history.evaluations[-1]
    yield f"after step {last['step']:,}"
    if run.history.is_finetuning:
        yield "the validation split, by which a checkpoint is chosen"
        return
    held_out, ema = settings["eval"], settings["ema"]
    counted = f"the same {held_out['clips']:,} at most" if held_out["clips"] else "all"
    if isinstance(run.answers, Answers):
        counted = f"{run.answers.clips:,} clips, {len(run.answers.captions):,} captions that differ"
    yield f"{held_out['data']} ({counted})"
    yield f"T={settings['frames']} frames of {settings['size']} x {settings['size']}, {settings['context_length']} tokens"
    if ema["decay"]:
        yield f"EMA of weights ({ema['decay']:g} a step)"
    yield "raw scores of the coarse model, no re-ranking"
    yield "ties at mid-rank; equal captions are one"
    yield f"{last.get('missing') or 0:,.0f} damaged clips, counted as misses"
