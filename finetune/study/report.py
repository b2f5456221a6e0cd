"""The report of a study: one page that needs nothing else, and one Markdown file, of the same tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from stillreel.animate.preview.guarded import content_policy, escape, isolated
from stillreel.configs.settings import settings_of
from stillreel.configs.study import StudySettings
from stillreel.configs.system.hardware import usable_cores
from stillreel.configs.system.storage import Folder
from stillreel.finetune.data.plan import devices
from stillreel.finetune.report.chart import Line, Point, draw_chart
from stillreel.finetune.report.history import read_history
from stillreel.finetune.report.told import table as table_of_figures
from stillreel.finetune.report.told import where
from stillreel.finetune.study.figures import EVERY, Arm, Study
from stillreel.finetune.study.grid import Cell, cells_of
from stillreel.finetune.study.run import results_of
from stillreel.finetune.study.tables import Entry, Table, recalls_of, tables_of

REPORT = "report.html"
_TITLE = "What does animating buy?"
_SAID_ONCE = ("model", "pairs", "seeds")
_ASSETS = ("stillreel.animate.preview", "base"), ("stillreel.finetune.report", "page")


def write_report(preset: str, settings: StudySettings, out: Path) -> Path:
    """Write OUT/report.html and OUT/report.md of the cells that are done; returns the page."""
    results = results_of(settings, out)
    study = Study(settings, results)
    tables = tables_of(study) if results else []
    head = _head(preset, settings, len(results), len(cells_of(settings)))
    Folder(str(out)).publish("report.md", in_markdown(head, tables).encode())
    charts = _charts(study, out) if results else ""
    Folder(str(out)).publish(REPORT, in_html(head, tables, charts, settings).encode())
    return out / REPORT


def brief_section(settings: StudySettings, out: Path, page: str) -> str:
    """A section for another page, of the cells that are done: what each arm finds. `page` is where the report is, from there."""
    study = Study(settings, results_of(settings, out))
    if not study.results:
        return ""
    found = recalls_of(study)
    told = [[entry.text for entry in row] for row in found.rows]
    # What is the same of all arms is said once, so that the table is narrow.
    alike = {
        name: column[0]
        for name, column in zip(found.columns, zip(*told, strict=True), strict=True)
        if name in _SAID_ONCE and len(set(column)) == 1
    }
    columns = tuple(name for name in found.columns if name not in alike)
    rows = tuple(
        tuple(Entry(text) for name, text in zip(found.columns, row, strict=True) if name in columns) for row in told
    )
    cells = f"{len(study.results):,} runs of {len(cells_of(settings)):,}"
    same = f" Of all: {', '.join(map(' '.join, alike.items()))}." if alike else ""
    small = _smallness(settings, len(study.results))
    note = f"{found.note} {cells}, {settings.world.tested:,} queries of each kind{small}.{same}"
    link = f'<p><a href="{escape(page)}">The study and its runs</a></p>'
    return _section(found._replace(title=_TITLE, note=note, columns=columns, rows=rows, anchors=()), link)


def in_markdown(head: Mapping[str, str], tables: Sequence[Table]) -> str:
    """The tables, each a section."""
    lines = [f"# {head['title']}", "", *(f"- {name}: {told}" for name, told in head.items() if name != "title")]
    for table in tables:
        lines += ["", f"## {table.title}", "", table.note, "", _row(table.columns), _row(["---"] * len(table.columns))]
        anchors = table.anchors or [""] * len(table.rows)
        for row, anchor in zip(table.rows, anchors, strict=True):
            cells = [_markdown_entry(entry) for entry in row]
            lines.append(_row([f'<a id="{anchor}"></a>{cells[0]}' if anchor else cells[0], *cells[1:]]))
    return "\n".join((*lines, ""))


def in_html(head: Mapping[str, str], tables: Sequence[Table], charts: str, settings: StudySettings) -> str:
    """The page; its look is that of a run's."""
    style, script = ("".join(_asset(package, f"{name}.{kind}") for package, name in _ASSETS) for kind in ("css", "js"))
    sections = [_section(table) for table in tables]
    if charts:
        sections.insert(1, f'<section><h2>Learning curves</h2><div class="charts">{charts}</div></section>')
    sections.append(_settings(settings))
    told = "; ".join(f"{name} {text}" for name, text in head.items() if name not in ("title", "settings"))
    return Template(_asset("stillreel.finetune.report", "page.html")).substitute(
        title=escape(head["title"]),
        policy=content_policy(style, script),
        style=style,
        script=script,
        name=isolated(head["title"]),
        about=where(isolated(told)) + where(escape("settings " + head["settings"])),
        totals="",
        sections="\n".join(sections),
    )


def _head(preset: str, settings: StudySettings, done: int, cells: int) -> dict[str, str]:
    world = settings.world
    asked = (
        f"{settings.real.benchmark}"
        if settings.real.benchmark
        else f"{world.tested:,} queries of each of five kinds, {world.size} px"
    )
    return {
        "title": _TITLE,
        "study": f"{preset}, {done:,} of {cells:,} cells are done{_smallness(settings, done)}",
        "asked": f"{asked}, {world.frames} frames",
        "date": time.strftime("%Y-%m-%d"),
        "machine": _machine(),
        "settings": settings.digest()[:12],
    }


def _smallness(settings: StudySettings, done: int) -> str:
    """What is to be said of a study that is no grid yet."""
    is_small = done < len(cells_of(settings)) or settings.main.seeds < 5 or settings.world.tested < 1000
    return ", too small to decide anything" if is_small else ""


def _machine() -> str:
    """Its cores, and what they and its NVIDIA devices are called."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return ", ".join((f"{usable_cores()} cores ({names[0] if names else 'unknown'})", *devices()))


def _section(found: Table, after: str = "") -> str:
    anchors = found.anchors or [""] * len(found.rows)
    rows = []
    for row, anchor in zip(found.rows, anchors, strict=True):
        named = f' id="{escape(anchor)}"' if anchor else ""
        rows.append(f"<tr{named}>{''.join(f'<td>{_html_entry(entry)}</td>' for entry in row)}</tr>")
    body = table_of_figures(found.columns, rows)
    return f'<section><h2>{escape(found.title)}</h2><p class="soft">{escape(found.note)}</p>{body}{after}</section>'


def _html_entry(entry: Entry) -> str:
    if not entry.link:
        return escape(entry.text)
    where = entry.link if "/" in entry.link else f"#{entry.link}"
    return f'<a href="{escape(where)}">{escape(entry.text)}</a>'


def _markdown_entry(entry: Entry) -> str:
    if not entry.link:
        return entry.text
    return f"[{entry.text}]({entry.link if '/' in entry.link else '#' + entry.link})"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _charts(study: Study, out: Path) -> str:
    """The loss of finetuning by data, the mean of the seeds, and R@1 by the number of finetuning pairs."""
    charts = []
    for model, pairs in dict.fromkeys((arm.model, arm.pairs) for arm in study.arms()):
        arms = [arm for arm in study.arms() if (arm.model, arm.pairs) == (model, pairs)]
        lines = [Line(arm.data, _loss(study, arm, out), color % 4) for color, arm in enumerate(arms[:4])]
        charts.append(draw_chart(f"Loss of finetuning: {model}, {pairs} pairs", [one for one in lines if one.points]))
    for model in dict.fromkeys(arm.model for arm in study.arms()):
        arms = [arm for arm in study.arms() if arm.model == model]
        if len({arm.pairs for arm in arms}) > 1:
            data = list(dict.fromkeys(arm.data for arm in arms))[:4]
            lines = [Line(name, _by_pairs(study, arms, name), color) for color, name in enumerate(data)]
            charts.append(draw_chart(f"R@1 by finetuning pairs: {model}", lines, unit="%"))
    return "".join(charts)


def _by_pairs(study: Study, arms: Sequence[Arm], data: str) -> list[Point]:
    return sorted((float(arm.pairs), study.figure(arm, EVERY).value) for arm in arms if arm.data == data)


def _loss(study: Study, arm: Arm, out: Path) -> list[Point]:
    curves = [
        dict(read_history(out / "cells" / Cell(*arm, seed).name).curve("loss"))
        for seed in study.seeds(arm)
        if (out / "cells" / Cell(*arm, seed).name / "run.json").is_file()
    ]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return [(step, sum(curve[step] for curve in curves) / len(curves)) for step in steps]


def _settings(settings: StudySettings) -> str:
    changes = settings.changes()
    rows = "".join(
        f"<tr><th>{escape(one.path)}</th><td>{escape(str(changes[one.path]))}</td>"
        f"<td class=soft>{escape(str(one.default))}</td></tr>"
        for one in settings_of(type(settings))
        if one.path in changes
    )
    table = f'<table class="settings"><tr><th>setting</th><td>value</td><td class=soft>default</td></tr>{rows}</table>'
    return f"<section><h2>Settings</h2>{table}<p class=soft><code>{escape(settings.digest())}</code></p></section>"


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
