"""`stillreel report RUN ...`: read runs' folders, ask each one's model about a few clips, write the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stillreel.configs import RequestError, StillreelError
from stillreel.configs.report import ReportSettings
from stillreel.configs.system.progress import amount
from stillreel.configs.system.storage import Folder
from stillreel.finetune.evaluation.results import RESULTS
from stillreel.finetune.report.answers import Answers, find_answers
from stillreel.finetune.report.chart import COLORS
from stillreel.finetune.report.history import History, read_history
from stillreel.finetune.report.page import render_page
from stillreel.finetune.report.tested import read_tested
from stillreel.finetune.report.told import Run, Told, names_of


def run(*runs: str, settings: ReportSettings) -> int:
    """Write the page of one run or several, finished or not; prints where it is."""
    folders = [Path(one).expanduser().resolve() for one in runs]
    page = Path(settings.page).expanduser().resolve() if settings.page else folders[0] / "report.html"
    tested = [Path(place).expanduser().resolve() for place in settings.results.split(",") if place]
    write_report(folders, page, clips=settings.clips, tested=tested)
    print(f"the report: {page} ({amount(page.stat().st_size)})", flush=True)
    return 0


def write_report(
    runs: Sequence[Path], page: Path, *, clips: int = 8, tested: Sequence[Path] = (), more: Sequence[str] = ()
) -> None:
    """Write the page of the runs in some folders: their curves over each other, so many clips with each one's answers (0: none),
    and what they, or the models in `tested` (results.json, or an OUT that has one), are worth on benchmarks, paired by query.
    `more` are sections, in HTML.

    RequestError when one is no run's folder. That clips or a model cannot be read is said on the page.
    """
    for one in runs:
        if runs.count(one) > 1:
            raise RequestError(f"RUN {one} is given twice")
    if len(runs) > COLORS:
        raise RequestError(f"{len(runs)} runs are given; a chart tells at most {COLORS} apart")
    histories = [read_history(one) for one in runs]
    places = list(dict.fromkeys((*runs, *tested)))
    names = dict(zip(places, names_of(places), strict=True))
    results = read_tested({one: names[one] for one in places if one in tested or (one / RESULTS).is_file()})
    told = Told([Run(names[one.run], one, _answers(one, clips)) for one in histories], results, more)
    Folder(str(page.parent)).publish(page.name, render_page(told).encode())


def _answers(history: History, clips: int) -> Answers | str:
    """Or why there are none."""
    if not clips:
        return "none were asked for (clips=0)"
    try:
        return find_answers(history, clips)
    except (StillreelError, OSError) as error:
        return str(error)
