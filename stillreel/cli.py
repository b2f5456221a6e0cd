"""The `stillreel` command: finds the command that is asked for, resolves its settings, calls it. Nothing but dispatch.

Imports nothing of the other rooms until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Collection, Sequence
from typing import Any

from stillreel import __version__
from stillreel.commands import COMMANDS, EXTRAS, OTHER_NAMES, Command

USAGE = """stillreel: captioned stills in, video-text models out

usage: stillreel COMMAND ARGUMENTS [key=value ...]

{commands}

stillreel COMMAND --help shows the settings that people change, --help all every one, and --print-config what they come to,
as YAML that preset=FILE.yaml reads. --key value and --key=value say key=value, too; they override the file.
stillreel --completion bash (or zsh) prints a script for the shell; -V the version.
Exit codes: 0 done; 1 something is wrong with the data or the result; 2 the request was wrong; 75 stopped by SIGTERM with
finished work kept, run again; 130 interrupted. STILLREEL_LOG=debug, info or warning: what is told on stderr."""


def main(words: list[str] | None = None) -> int:
    """Run a command line; returns its exit code."""
    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE.format(commands=_command_lines()))
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(__version__)
        return 0
    from stillreel.configs.system.log import log_to_stderr

    with log_to_stderr():
        return _run(words[0], words[1:])


def _run(name: str, words: list[str]) -> int:
    from stillreel.configs import Interrupted, RequestError, StillreelError, parse_words

    try:
        if name == "--completion":
            from stillreel.completion import completion_script

            print(completion_script(words[0] if words else ""), flush=True)
            return 0
        if name not in COMMANDS:
            raise RequestError(_no_command(name))
        command = COMMANDS[name]
        model = settings_model(command.settings)
        if "--help" in words or "-h" in words:
            from stillreel.help import help_page

            print(help_page(name, command, model, every="all" in words), flush=True)
            return 0
        beyond = set(settings_model(command.beyond).model_fields) - set(model.model_fields) if command.beyond else ()
        if "--print-config" in words:
            _print_config(name, command, model, [word for word in words if word != "--print-config"], beyond)
            return 0
        given, values = parse_words(
            words, command.positionals, model, presets=command.presets, folder=command.folder, beyond=beyond
        )
        settings = model.resolve(values)
        from stillreel.help import digest_line

        if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks for all
            # Beside the output, not in it: what a command prints may be read by a program.
            logging.getLogger("stillreel.cli").info(digest_line(name, settings))
        run = importlib.import_module(f"stillreel.{command.module}").run
        code = int(run(*given, settings=settings))
        sys.stdout.flush()
        return code
    except StillreelError as error:
        print(f"stillreel {name}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f'stillreel {name}: {error.name} is not installed: pip install "stillreel[{extra}]"', file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever reads the output has read enough, as `head` has. What is left goes nowhere, without a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        from stillreel.configs.system.trouble import in_words, is_of_storage

        # A full disk, a denied permission, a bucket that is not there: nothing that a traceback would help with.
        if not isinstance(error, OSError) and not is_of_storage(error):
            raise
        print(f"stillreel {name}: {in_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stillreel {name}: {Interrupted('interrupted', 130)}", file=sys.stderr)
        return 130


def _print_config(name: str, command: Command, model: Any, words: Sequence[str], beyond: Collection[str]) -> None:
    """The resolved settings as YAML. Positional arguments and required settings may be left out, and are then not in it."""
    from stillreel.configs import parse_words
    from stillreel.configs.settings import settings_of

    given, values = parse_words(
        words,
        command.positionals,
        model,
        presets=command.presets,
        folder=command.folder,
        beyond=beyond,
        complete=False,
    )
    lacking = {one.path: one.about for one in settings_of(model) if one.required and one.path not in values}
    settings = model.resolve({**values, **dict.fromkeys(lacking, "?")})
    if os.environ.get("RANK", "0") != "0":
        return
    called = " ".join(["stillreel", name, *filter(None, given)])
    print(f"# {called}: read back by preset=FILE.yaml{', or as PRESET' * bool(command.presets)}")
    for path, about in lacking.items():
        print(f"# {path}= is still to be given: {about}")
    print(settings.as_yaml(without=lacking), end="", flush=True)


def _no_command(name: str) -> str:
    from stillreel.configs.settings import nearest

    meant = OTHER_NAMES.get(name)
    hint = f"; did you mean {' or '.join(map(repr, meant))}?" if meant else nearest(name, COMMANDS)
    return f"no command {name!r}{hint}{' There' if hint else '; there'} are {', '.join(COMMANDS)}"


def settings_model(name: str) -> Any:
    """The settings of a command, by what COMMANDS says of them."""
    module, _, model = name.rpartition(".")
    return getattr(importlib.import_module(f"stillreel.configs.{module}"), model)


def _command_lines() -> str:
    calls = {" ".join((name, *one.positionals)): one.about for name, one in COMMANDS.items()}
    width = max(map(len, calls)) + 2
    return "\n".join(f"  {call:<{width}}{about}" for call, about in calls.items())


if __name__ == "__main__":
    sys.exit(main())
