"""Pages of the site that are written from the code: every command with all its settings, and what `import stillreel` offers."""

from __future__ import annotations

from typing import Any

import stillreel
from stillreel.cli import settings_model
from stillreel.commands import COMMANDS, Command
from stillreel.configs.settings import Settings, choices_of, settings_of
from stillreel.help import as_word, grouped


def on_files(files: Any, config: Any) -> Any:
    """mkdocs' hook: adds the pages."""
    from mkdocs.structure.files import File

    for name, text in (("commands.md", commands()), ("api.md", api())):
        files.append(File.generated(config, name, content=text))
    return files


def commands() -> str:
    pages = [_page(name, command, settings_model(command.settings)) for name, command in COMMANDS.items()]
    return "\n".join(["# Commands\n", "Settings are given as `key=value`, `--key=value` or `--key value`.\n", *pages])


def _page(name: str, command: Command, model: type[Settings]) -> str:
    usage = " ".join(("stillreel", name, *command.positionals, "[key=value ...]"))
    lines = [f"## {name}\n", f"    {usage}\n", f"{command.about}\n", "| setting | default | |", "|---|---|---|"]
    for title, settings in grouped(settings_of(model)):
        lines.append(f"| **{title}** | | |")
        for one in settings:
            default = "*required*" if one.required else f"`{as_word(one.default)}`" if as_word(one.default) else ""
            choices = ", ".join(f"`{choice}`" for choice in choices_of(one.kind) if one.kind is not bool)
            about = f"{one.about}: {choices}" if choices and choices not in one.about else one.about
            lines.append(f"| `{one.path}` | {default} | {_plain(about)} |")
    return "\n".join([*lines, ""])


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def api() -> str:
    names = sorted(name for name in stillreel.__all__ if not name.startswith("_"))
    return "\n".join(["# Python\n", *(f"::: stillreel.{name}\n" for name in names)])
