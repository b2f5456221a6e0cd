"""`stillreel report RUN`: read a run's folder, ask its model about a few clips, write the page."""

from __future__ import annotations

from pathlib import Path

from configs import StillreelError
from configs.pretrain import PretrainSettings
from configs.report import ReportSettings
from finetune.report.answers import Answers, find_answers
from finetune.report.history import History, read_history
from finetune.report.page import render_page
from shards.progress import amount
from shards.storage import Folder


def run(run: str, settings: ReportSettings) -> int:
    """Write the page of a run, finished or not; prints where it is."""
    folder = Path(run).expanduser().resolve()
    page = Path(settings.page).expanduser().resolve() if settings.page else folder / "report.html"
    write_report(folder, page, clips=settings.clips)
    print(f"the report: {page} ({amount(page.stat().st_size)})", flush=True)
    return 0


def write_report(run: Path, page: Path, *, clips: int = 8) -> None:
    """Write the page of the run in a folder, showing so many held-out clips (0: none).

    RequestError when it is no run's folder. That the held-out set or the model cannot be read is said on the page.
    """
    history = read_history(run)
    Folder(str(page.parent)).publish(page.name, render_page(history, _answers(history, clips)).encode())


def _answers(history: History, clips: int) -> Answers | str:
    """Or why there are none."""
    if not clips:
        return "none were asked for (clips=0)"
    try:
        return find_answers(history.run, PretrainSettings.resolve(history.settings), clips)
    except (StillreelError, OSError) as error:
        return str(error)
