"""Pages of the site that are written from the code: every command with all its settings, and what `import stillreel` offers."""

from __future__ import annotations

from typing import Any

import stillreel
from stillreel.cli import settings_model
from stillreel.commands import COMMANDS
from stillreel.help import help_page


def on_files(files: Any, config: Any) -> Any:
    """mkdocs' hook: adds the pages."""
    from mkdocs.structure.files import File

    for name, text in (("commands.md", commands()), ("api.md", api())):
        files.append(File.generated(config, name, content=text))
    return files


def commands() -> str:
    pages = [
        f"## {name}\n\n```text\n{help_page(name, command, settings_model(command.settings), every=True)}\n```\n"
        for name, command in COMMANDS.items()
    ]
    return "\n".join(["# Commands\n", "As `stillreel COMMAND --help all` prints them.\n", *pages])


def api() -> str:
    names = sorted(name for name in stillreel.__all__ if not name.startswith("_"))
    return "\n".join(["# Python\n", *(f"::: stillreel.{name}\n" for name in names)])
