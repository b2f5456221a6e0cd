"""`stillreel report RUN`: read a run's folder, ask its model about a few clips, write the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stillreel.configs import RequestError, StillreelError
from stillreel.configs.pretrain import PretrainSettings
from stillreel.configs.report import ReportSettings
from stillreel.configs.system.progress import amount
from stillreel.configs.system.storage import Folder
from stillreel.finetune.evaluation.results import RESULTS
from stillreel.finetune.report.answers import Answers, find_answers
from stillreel.finetune.report.chart import COLORS
from stillreel.finetune.report.history import History, read_history
from stillreel.finetune.report.page import render_page
from stillreel.finetune.report.tested import read_tested


def run(run: str, settings: ReportSettings) -> int:
    """Write the page of a run, finished or not; prints where it is."""
    folder = Path(run).expanduser().resolve()
    page = Path(settings.page).expanduser().resolve() if settings.page else folder / "report.html"
    tested = [Path(place).expanduser() for place in settings.results.split(",") if place]
    beside = [Path(place).expanduser().resolve() for place in settings.beside.split(",") if place]
    write_report(folder, page, clips=settings.clips, tested=tested, beside=beside)
    print(f"the report: {page} ({amount(page.stat().st_size)})", flush=True)
    return 0


def write_report(
    run: Path, page: Path, *, clips: int = 8, tested: Sequence[Path] = (), beside: Sequence[Path] = ()
) -> None:
    """Write the page of the run in a folder, showing so many held-out clips (0: none), and what its model, or those in
    `tested` (results.json, or an OUT that has one), are worth on benchmarks; and, over its own, the curves of the runs `beside`.

    RequestError when it is no run's folder. That the held-out set or the model cannot be read is said on the page.
    """
    history = read_history(run)
    results = read_tested([run, *tested] if (run / RESULTS).is_file() else tested)
    if len(beside) >= COLORS:
        raise RequestError(
            f"beside= names {len(beside)} runs; a chart tells at most {COLORS} apart, the run's own included"
        )
    others = [read_history(one) for one in beside]
    text = render_page(history, _answers(history, clips), results, others)
    Folder(str(page.parent)).publish(page.name, text.encode())


def _answers(history: History, clips: int) -> Answers | str:
    """Or why there are none."""
    if not clips:
        return "none were asked for (clips=0)"
    if history.is_finetuning:
        return "the run was on videos of a benchmark; results.json has the rank of every query"
    try:
        return find_answers(history.run, PretrainSettings.resolve(history.settings), clips)
    except (StillreelError, OSError) as error:
        return str(error)
