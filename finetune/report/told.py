"""What a page is made of, and the HTML that its sections share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stillreel.animate.preview.guarded import escape
from stillreel.finetune.report.answers import Answers
from stillreel.finetune.report.history import History

Results = Mapping[str, Any]

WAYS = {"t2v": "Text to video", "v2t": "Video to text"}


class Run(NamedTuple):
    """A run by the name that it has on the page; of `answers` there may be only the reason why there are none."""

    name: str
    history: History
    answers: Answers | str

    @property
    def chance(self) -> Mapping[str, float]:
        """Of held-out figures, by their names; empty where it is not known."""
        return self.answers.chance if isinstance(self.answers, Answers) else {}


class Benchmarked(NamedTuple):
    """Results of a benchmark, and whose they are."""

    name: str
    results: Results


class Told(NamedTuple):
    """One run or several side by side, benchmarks of these or of others, and sections that are HTML already."""

    runs: Sequence[Run]
    tested: Sequence[Benchmarked] = ()
    more: Sequence[str] = ()

    @property
    def single(self) -> Run | None:
        """The run, where there is one."""
        return self.runs[0] if len(self.runs) == 1 else None


def names_of(folders: Sequence[Path]) -> list[str]:
    """What each of several folders is called (a file by its own): as many of its last parts as tell it from the others."""
    folders = [one.parent if one.suffix == ".json" else one for one in folders]
    names = [folder.name for folder in folders]
    depth = 1
    while len(set(names)) < len(set(folders)):
        depth += 1
        names = [
            "/".join(folder.parts[-depth:]) if names.count(name) > 1 else name
            for name, folder in zip(names, folders, strict=True)
        ]
    return names


def where(markup: str) -> str:
    """A line below the page's heading, of HTML."""
    return f'<p class="where"><code>{markup}</code></p>'


def section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>'


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """Of figures: the first column to the left, the others to the right; it is swiped where the page is narrow."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in head)
    return f'<div class="scroll" tabindex="0"><table class="figures"><tr class="head">{names}</tr>{"".join(rows)}</table></div>'


def row(name: str, cells: Iterable[str], kind: str = "") -> str:
    """A row of a table; of some `kind` that page.css knows."""
    told = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr{f" class={kind}" * bool(kind)}><th scope="row">{escape(name)}</th>{told}</tr>'
