"""The page: figures at the top, then its sections. One file, nothing loaded from elsewhere; its look is the preview's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from statistics import median
from string import Template
from typing import NamedTuple

from stillreel.animate.preview.guarded import content_policy, escape, isolated
from stillreel.configs.system.progress import amount, duration
from stillreel.finetune.report.answers import Answer, Answers
from stillreel.finetune.report.chart import Line, draw_chart
from stillreel.finetune.report.history import History
from stillreel.finetune.report.tested import Results, render_tested
from stillreel.pretrain.evaluation.results import DEPTHS

_WAYS = {"t2v": "Text to video", "v2t": "Video to text"}
_DRAWN = (1, 5, 10)  # depths of the curves
_FPS = 3


class Told(NamedTuple):
    """What a page is made of; of `answers` there may be only the reason why there are none."""

    history: History
    answers: Answers | str
    tested: Sequence[Results]
    beside: Sequence[History]


def render_page(
    history: History, answers: Answers | str, tested: Sequence[Results] = (), beside: Sequence[History] = ()
) -> str:
    """The HTML of the page; curves of the runs `beside` are drawn over those of the run."""
    told = Told(history, answers, tested, beside)
    benchmarks = ", ".join(dict.fromkeys(str(one["benchmark"]) for one in tested))
    name = f"{history.run.name} on {benchmarks}" if benchmarks else history.run.name
    shared, own = "stillreel.animate.preview", "stillreel.finetune.report"
    style = _asset(shared, "base.css") + _asset(own, "page.css")
    script = _asset(shared, "base.js") + _asset(own, "page.js")
    state = "finished" if history.is_finished else "not finished"
    return Template(_asset("stillreel.finetune.report", "page.html")).substitute(
        title=escape(f"{name}: a run of {history.steps:,} steps"),
        policy=content_policy(style, script),
        style=style,
        script=script,
        name=isolated(name),
        where=isolated(str(history.run)),
        settings=escape(f"settings {history.digest[:12]}, {state} after step {history.steps:,}"),
        totals=_totals(history),
        sections="\n".join(section(told) for section in _SECTIONS),
    )


def _totals(history: History) -> str:
    last = history.readings[-1] if history.readings else {}
    found = history.evaluations[-1] if history.evaluations else {}
    peak = max((value for _, value in history.curve("memory")), default=None)
    tiles = [
        (f"{history.steps:,}", "steps"),
        (_told(last.get("clips"), "{:,.0f}"), "clips seen"),
        (_told(last.get("epoch"), "{:.2f}"), "epochs"),
        (_told(last.get("loss"), "{:.3f}"), "loss"),
        *((_told(found.get(f"{way}_r1"), "{:.1f}"), f"R@1, {name.lower()}") for way, name in _WAYS.items()),
        (_middle(history, "clips_per_s", "{:,.1f}"), "clips/s (median)"),
        (_middle(history, "data_wait", "{:.1%}"), "data wait (median)"),
        (_middle(history, "mfu", "{:.1%}"), "MFU (median)"),
        ("" if peak is None else amount(peak), "memory at the peak"),
        (duration(history.seconds()) if history.readings else "", "in steps"),
    ]
    return "".join(
        f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in tiles if value
    )


def _told(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _middle(history: History, name: str, form: str) -> str:
    values = [value for line in history.readings if (value := line.get(name)) is not None]
    return form.format(median(values)) if values else ""


def _curves(told: Told) -> str:
    history = told.history
    parts = history.parts()
    loss = [Line("loss", history.curve("loss"))]
    if told.beside:
        loss = _of_each(told, "loss")
    elif len(parts) > 1:
        loss += [Line(name.removeprefix("loss."), history.curve(name), at) for at, name in enumerate(parts, 1)]
    charts = [
        draw_chart("Loss", loss),
        draw_chart("Learning rate, at its highest", [Line("lr", history.curve("lr"))], from_zero=True),
        *(
            draw_chart(f"{name}, held out", _recalls(told, way), unit="%", from_zero=True)
            for way, name in _WAYS.items()
        ),
        draw_chart("Clips per second", [Line("clips/s", history.curve("clips_per_s"))], from_zero=True),
        draw_chart(
            "Waiting for data", [Line("share of time", _percent(history, "data_wait"))], unit="%", from_zero=True
        ),
    ]
    drawn = "".join(charts)
    nothing = '<p class="none">metrics.jsonl tells of no step yet.</p>'
    return _section("curves", history.stage, f'<div class="charts">{drawn}</div>' if drawn else nothing)


def _of_each(told: Told, curve: str) -> list[Line]:
    """A curve of the run and of those beside it, each in a color of its own."""
    runs = (told.history, *told.beside)
    return [Line(name, run.curve(curve), at) for at, (name, run) in enumerate(zip(_names(runs), runs, strict=True))]


def _names(runs: Sequence[History]) -> list[str]:
    """What each of several runs is called: the last part of its folder, or all of it where that is another's, too."""
    last = [history.run.name for history in runs]
    return [name if last.count(name) == 1 else str(one.run) for name, one in zip(last, runs, strict=True)]


def _percent(history: History, name: str) -> list[tuple[float, float]]:
    return [(step, 100 * value) for step, value in history.curve(name)]


def _recalls(told: Told, way: str) -> list[Line]:
    if told.beside:
        return [line._replace(name=f"R@1, {line.name}") for line in _of_each(told, f"{way}_r1")]
    lines = []
    for color, depth in enumerate(_DRAWN):
        name, points = f"R@{depth}", told.history.curve(f"{way}_r{depth}")
        if isinstance(told.answers, Answers):
            chance = told.answers.chance[f"{way}_r{depth}"]
            lines.append(Line(f"{name} (chance {chance:.1f})", points, color, chance))
        else:
            lines.append(Line(name, points, color))
    return lines


def _figures(told: Told) -> str:
    """The last evaluation, with its protocol."""
    evaluations = told.history.evaluations
    if not evaluations:
        return _section("figures", "Held-out retrieval", '<p class="none">The run was not evaluated on the way.</p>')
    last = evaluations[-1]
    names = {**{f"r{depth}": f"R@{depth}" for depth in DEPTHS}, "mdr": "MdR", "mnr": "MnR"}
    rows = []
    for way, title in _WAYS.items():
        rows.append((title, [_told(last.get(f"{way}_{name}"), "{:.1f}") for name in names]))
        if isinstance(told.answers, Answers):
            rows.append(("chance", [_told(told.answers.chance.get(f"{way}_{name}"), "{:.1f}") for name in names]))
    body = "".join(
        f"<tr{' class=soft' * (name == 'chance')}><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, cells in rows
    )
    head = "".join(f"<th>{name}</th>" for name in names.values())
    table = f'<div class="scroll"><table class="figures"><tr><th></th>{head}</tr>{body}</table></div>'
    return _section("figures", "Held-out retrieval", f'{table}<p class="protocol">{escape(_protocol(told))}</p>')


def _protocol(told: Told) -> str:
    """What the figures are of, in a line."""
    settings, last = told.history.settings, told.history.evaluations[-1]
    if told.history.is_finetuning:
        return f"Protocol: after step {last['step']:,}; the validation split, by which a checkpoint is chosen"
    held_out, ema = settings["eval"], settings["ema"]
    counted = f"the same {held_out['clips']:,} at most" if held_out["clips"] else "all"
    if isinstance(told.answers, Answers):
        counted = f"{told.answers.clips:,} clips, {told.answers.captions:,} captions that differ"
    return "; ".join(
        (
            f"Protocol: after step {last['step']:,}",
            f"{held_out['data']} ({counted})",
            f"T={settings['frames']} frames of {settings['size']} x {settings['size']}, {settings['context_length']} tokens",
            *([f"EMA of weights ({ema['decay']:g} a step)"] if ema["decay"] else []),
            "raw scores of the coarse model, no re-ranking",
            "ties at mid-rank; equal captions are one",
            f"{last.get('missing') or 0:,.0f} damaged clips, counted as misses",
        )
    )


def _tested(told: Told) -> str:
    return _section("tested", "Benchmarks", "".join(map(render_tested, told.tested))) if told.tested else ""


def _examples(told: Told) -> str:
    answers = told.answers
    if isinstance(answers, str):
        return _section("examples", "What it answers", f'<p class="none">No clips are shown: {isolated(answers)}</p>')
    about = (
        f"Held-out clips, evenly spread over the set and not chosen, with the captions that the model ({answers.model}) ranks "
        f"first among {answers.captions:,}; the right one is marked."
    )
    cards = "".join(_card(answer) for answer in answers.shown)
    return _section(
        "examples", "What it answers", f'<p class="soft">{escape(about)}</p><div class="answers">{cards}</div>'
    )


def _card(answer: Answer) -> str:
    strip = answer.strip
    style = f"--n:{strip.frames};--s:{strip.frames / _FPS:.2f}s;--strip:url({strip.url})"
    items = "".join(
        f'<li value="{choice.rank}"{" class=right" * choice.is_right}>{isolated(choice.caption)}'
        f"{' <b>right</b>' * choice.is_right}</li>"
        for choice in answer.choices
    )
    return f'<article data-style="{style}"><div class="clip"></div><ol>{items}</ol></article>'


def _settings(told: Told) -> str:
    """What was run: what differs from the defaults, and the versions."""
    rows = "".join(
        f"<tr><th>{escape(one.name)}</th><td>{escape(one.new)}</td><td class=soft>{escape(one.old)}</td></tr>"
        for one in told.history.differences()
    )
    versions = ", ".join(f"{name} {version}" for name, version in told.history.libraries.items())
    return _section(
        "settings",
        "What was run",
        f'<table class="settings"><tr><th>setting</th><td>value</td><td class=soft>default</td></tr>{rows}</table>'
        f'<p class="soft">settings <code>{escape(told.history.digest)}</code></p><p class="soft">{escape(versions)}</p>',
    )


# A page is these, in this order.
_SECTIONS: Sequence[Callable[[Told], str]] = (_curves, _figures, _tested, _examples, _settings)


def _section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>'


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
