"""`stillreel study PRESET`: the control grid: what does animating buy?

OUT/world/          what is drawn                 OUT/cells/         a run of finetuning a cell, and its result.json
OUT/image/          the image model               OUT/report.html    the answers, and OUT/report.md
OUT/pretrained/     runs of pretraining
"""

from __future__ import annotations

from pathlib import Path

from stillreel.configs.study import StudySettings
from stillreel.finetune.study.figures import Study
from stillreel.finetune.study.report import write_report
from stillreel.finetune.study.run import plan_of, results_of, run_study
from stillreel.finetune.study.tables import power_in_words


def run(preset: str, settings: StudySettings) -> int:
    """Make every cell that has no result yet, and report; returns 0, or 1 where some failed."""
    out = Path(settings.out).expanduser().resolve()
    if settings.dry_run:
        print(plan_of(settings, out))
        if results := results_of(settings, out):
            print(power_in_words(Study(settings, results)))
        return 0
    failed = run_study(settings, out)
    page = write_report(preset, settings, out)
    print((out / "report.md").read_text())
    print(f"the report: {page.as_uri()}", flush=True)
    for one in failed:
        print(f"failed: {one}")
    return 1 if failed else 0
