"""The site of docs/: it is built without a network and asks for none, and no link of it is dead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests.making import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(home)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def test_no_page_fetches_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|img|iframe|link(?=[^>]+rel="stylesheet"))[^>]+(?:src|href)="([^"]+)"', page.read_text()
        )
        assert fetched and not [one for one in fetched if urlparse(one).scheme not in ("", "data")], page


def test_no_link_is_dead(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text()):
            parts = urlparse(link)
            if parts.scheme or not parts.path:
                continue
            target = (page.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page.relative_to(site)}: {link}"
            if parts.fragment and target.suffix == ".html":
                assert f'id="{unquote(parts.fragment)}"' in target.read_text(), f"{page.relative_to(site)}: {link}"


def test_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text()):
        assert urlparse(link).scheme or (ROOT / link).exists(), link


def test_commands_and_names_are_all_there(site: Path) -> None:
    from stillreel import __all__
    from stillreel.commands import COMMANDS

    shown = (site / "commands" / "index.html").read_text()
    assert all(f'id="{name}"' in shown for name in COMMANDS)
    shown = (site / "api" / "index.html").read_text()
    assert all(name in shown for name in __all__)
