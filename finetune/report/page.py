"""The page: figures at the top, then its sections. One file, nothing loaded from elsewhere; its look is the preview's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from string import Template

from stillreel.animate.preview.guarded import content_policy, escape, isolated
from stillreel.finetune.report.curves import render_curves
from stillreel.finetune.report.examples import render_examples
from stillreel.finetune.report.figures import render_figures, render_totals
from stillreel.finetune.report.history import History
from stillreel.finetune.report.tested import render_paired, render_tested, title_of
from stillreel.finetune.report.told import Run, Told, section, where
from stillreel.pretrain.run.compare import compare_settings


def render_page(told: Told) -> str:
    """The HTML of the page of a run, or of several side by side."""
    shared, own = "stillreel.animate.preview", "stillreel.finetune.report"
    style = _asset(shared, "base.css") + _asset(own, "page.css")
    script = _asset(shared, "base.js") + _asset(own, "page.js")
    name = _name(told)
    kind = f"a run of {told.single.history.steps:,} steps" if told.single else f"{len(told.runs)} runs"
    return Template(_asset(own, "page.html")).substitute(
        title=escape(f"{name}: {kind}"),
        policy=content_policy(style, script),
        style=style,
        script=script,
        name=isolated(name),
        about="".join(_where(run.history) for run in told.runs),
        totals=render_totals(told),
        sections="\n".join(render(told) for render in _SECTIONS),
    )


def _name(told: Told) -> str:
    """The runs and the benchmarks that they were tested on, and what stands beside them."""
    runs = [run.name for run in told.runs]
    own = dict.fromkeys(title_of(one.results) for one in told.tested if one.name in runs)
    beside = [f"{one.name} on {title_of(one.results)}" for one in told.tested if one.name not in runs]
    name = f"{', '.join(runs)} on {', '.join(own)}" if own else ", ".join(runs)
    return f"{name}, beside {', '.join(beside)}" if beside else name


def _where(history: History) -> str:
    """The run's folder, which settings it has, and how far it is."""
    state = "finished" if history.is_finished else "not finished"
    told = f"settings {history.digest[:12]}, {state} after step {history.steps:,}"
    return where(f"{isolated(str(history.run))}: {escape(told)}")


def _more(told: Told) -> str:
    return "\n".join(told.more)


def _settings(told: Told) -> str:
    """What was run: what differs from the defaults, or from the other runs, and the versions."""
    defaults = {one.name: one.old for run in told.runs for one in run.history.differences()}
    values = [{one.name: one.new for one in compare_settings({}, run.history.settings)} for run in told.runs]
    rows = []
    for name in sorted(defaults):
        own = [one.get(name, "") for one in values]
        mark = " class=differs" * (len(set(own)) > 1)
        cells = "".join(f"<td>{escape(value)}</td>" for value in own)
        rows.append(f"<tr{mark}><th>{escape(name)}</th>{cells}<td class=soft>{escape(defaults[name])}</td></tr>")
    heads = ["value"] if told.single else [run.name for run in told.runs]
    head = "".join(f"<td>{escape(one)}</td>" for one in heads)
    table = f'<table class="settings"><tr><th>setting</th>{head}<td class=soft>default</td></tr>{"".join(rows)}</table>'
    return section("settings", "What was run", table + "".join(_versions(run, bool(told.single)) for run in told.runs))


def _versions(run: Run, is_single: bool) -> str:
    who = "" if is_single else f"{run.name}: "
    versions = ", ".join(f"{name} {version}" for name, version in run.history.libraries.items())
    digest = f'<p class="soft">{escape(who)}settings <code>{escape(run.history.digest)}</code></p>'
    return f'{digest}<p class="soft">{escape(versions)}</p>'


# A page is these, in this order.
_SECTIONS: Sequence[Callable[[Told], str]] = (
    render_curves,
    render_figures,
    render_tested,
    render_paired,
    render_examples,
    _more,
    _settings,
)


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
