"""Settings of `stillreel report`."""

from __future__ import annotations

from pydantic import Field

from stillreel.configs.settings import Settings


class ReportSettings(Settings):
    page: str = Field("", description="HTML file that is written; empty: RUN/report.html")
    clips: int = Field(8, ge=0, le=100, description="held-out clips whose retrievals the page shows")
    beside: str = Field("", description="other runs, whose curves are drawn over this one's, joined by commas")
    results: str = Field(
        "", description="results.json files of benchmarks to show, or folders that have one, joined by commas"
    )
