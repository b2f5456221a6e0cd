"""Settings of `stillreel report`."""

from __future__ import annotations

from pydantic import Field

from stillreel.configs.settings import Settings


class ReportSettings(Settings):
    page: str = Field("", description="where to write; empty: RUN/report.html")
    clips: int = Field(8, ge=0, le=100, description="held-out clips that the model is asked about")
    results: str = Field("", description="results.json of benchmarks to show, or OUTs that have one, joined by commas")
