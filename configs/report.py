"""Settings of `stillreel report`."""

from __future__ import annotations

from pydantic import Field

from stillreel.configs.settings import Settings


class ReportSettings(Settings):
    page: str = Field("", description="HTML file that is written; empty: report.html in the first RUN")
    clips: int = Field(8, ge=0, le=100, description="clips whose retrievals the page shows, of each run; 0: none")
    results: str = Field(
        "", description="results.json files of benchmarks to show, or folders that have one, joined by commas"
    )
