"""The `stillreel` command: finds the command that is asked for, resolves its settings, calls it. Nothing but dispatch.

Imports nothing of the other rooms until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command: the module whose `run` does it, its settings in `configs`, its positional arguments (in brackets: may be
    left out), a line about it; the folder of configs that has the preset which the first of them names; the folder of those
    that preset= names; and the settings of another command, whose presets it shares and whose own keys it leaves."""

    module: str
    settings: str
    positionals: tuple[str, ...]
    about: str
    presets: str = ""
    folder: str = "presets"
    beyond: str = ""


COMMANDS = {
    "demo": Command(
        "finetune.commands.demo",
        "build.DemoSettings",
        (),
        "everything below, small, on pictures drawn by code",
    ),
    "download": Command(
        "animate.commands.download",
        "build.DownloadSettings",
        ("TABLE", "OUT"),
        "image URLs and captions -> image shards, by img2dataset",
    ),
    "animate": Command(
        "animate.commands.animate",
        "build.AnimateSettings",
        ("SOURCE", "OUT"),
        "image shards or folders -> clip shards, by Ray",
    ),
    "verify": Command(
        "shards.commands.verify",
        "build.VerifySettings",
        ("OUT",),
        "prove that nothing is missing and every byte is as written",
    ),
    "preview": Command(
        "animate.commands.preview", "build.PreviewSettings", ("OUT",), "a page that shows what was made"
    ),
    "stats": Command("shards.commands.stats", "build.StatsSettings", ("OUT",), "count it"),
    "catalog": Command(
        "shards.commands.catalog",
        "stream.CatalogSettings",
        ("TARS", "OUT"),
        "byte index of tars that stillreel did not write, kept beside them",
    ),
    "stream": Command(
        "pretrain.commands.stream",
        "stream.StreamSettings",
        ("DATA",),
        "what a run would read: keys=true the order, simulate=true the cost",
    ),
    "pretrain": Command(
        "pretrain.commands.pretrain",
        "pretrain.PretrainSettings",
        ("PRESET",),
        "clip shards -> a video-text model; also as torchrun -m stillreel pretrain",
        presets="pretrain",
    ),
    "finetune": Command(
        "finetune.commands.finetune",
        "finetune.FinetuneSettings",
        ("BENCHMARK",),
        "train on a benchmark, evaluate, print the table; also as torchrun -m stillreel finetune",
        folder="finetune",
    ),
    "evaluate": Command(
        "finetune.commands.evaluate",
        "finetune.EvaluateSettings",
        ("BENCHMARK",),
        "the table of a checkpoint, ours or a peer's; also as torchrun -m stillreel finetune",
        folder="finetune",
        beyond="finetune.FinetuneSettings",
    ),
    "report": Command(
        "finetune.commands.report",
        "report.ReportSettings",
        ("RUN",),
        "a page about a run: its curves, its figures, what it answers",
    ),
    "import-checkpoint": Command(
        "finetune.commands.import_checkpoint",
        "exchange.ImportSettings",
        ("FILE", "OUT"),
        "a checkpoint of CLIP4Clip, CLIP2Video, STAN, OpenAI, open_clip or HF -> one of ours",
    ),
    "export": Command(
        "finetune.commands.export",
        "exchange.ExportSettings",
        ("CHECKPOINT", "OUT"),
        "a checkpoint of ours -> safetensors, and towers that open_clip loads",
    ),
    "index": Command(
        "finetune.commands.index",
        "search.IndexSettings",
        ("VIDEOS", "OUT"),
        "a folder of videos -> an index that is searched by text; run again, it follows the folder",
    ),
    "search": Command(
        "finetune.commands.search",
        "search.SearchSettings",
        ("INDEX", "[TEXT]"),
        "the videos that a text tells of, coarse to fine; also image=, video=, queries=FILE",
    ),
    "serve": Command(
        "finetune.commands.serve",
        "search.ServeSettings",
        ("INDEX",),
        "a page to search an index, for this machine's browser",
    ),
    "doctor": Command(
        "pretrain.commands.doctor",
        "doctor.DoctorSettings",
        (),
        "what this machine can do, what it lacks, and what a model costs on it",
    ),
}

# What a command may miss, and the extra that has it.
EXTRAS = {
    "torch": "train",
    "open_clip": "train",
    "safetensors": "train",
    "starlette": "serve",
    "uvicorn": "serve",
    "faiss": "faiss",
}

USAGE = """stillreel: captioned stills in, video-text models out

usage: stillreel COMMAND ARGUMENTS [key=value ...]

{commands}

stillreel COMMAND --help lists a command's settings. preset=FILE.yaml reads settings from a file; key=value overrides it.
Exit codes: 0 done; 1 something is wrong with the data or the result; 2 the request was wrong; 75 stopped by SIGTERM with
finished work kept, run again; 130 interrupted. STILLREEL_LOG=debug, info or warning: what is told on stderr."""


def main(words: list[str] | None = None) -> int:
    """Run a command line; returns its exit code."""
    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE.format(commands=_command_lines()))
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("stillreel"))
        return 0
    from stillreel.configs.system.log import log_to_stderr

    with log_to_stderr():
        return _run(words[0], words[1:])


def _run(name: str, words: list[str]) -> int:
    from stillreel.configs import Interrupted, RequestError, StillreelError, parse_words

    try:
        if name not in COMMANDS:
            raise RequestError(f"no command {name!r}; there are {', '.join(COMMANDS)}")
        command = COMMANDS[name]
        model = _settings(command.settings)
        if "--help" in words or "-h" in words:
            print(_help(name, command, model), flush=True)
            return 0
        beyond = set(_settings(command.beyond).model_fields) - set(model.model_fields) if command.beyond else ()
        given, values = parse_words(
            words, command.positionals, model, presets=command.presets, folder=command.folder, beyond=beyond
        )
        settings = model.resolve(values)
        if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks for all
            # Beside the output, not in it: what a command prints may be read by a program.
            said = f"stillreel {name}: settings {settings.digest()[:12]}: {_in_words(settings)}"
            logging.getLogger("stillreel.cli").info(said)
        run = importlib.import_module(f"stillreel.{command.module}").run
        code = int(run(*given, settings))
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
    except OSError as error:
        # A full disk, a denied permission, a bucket that is not there: nothing that a traceback would help with.
        print(f"stillreel {name}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stillreel {name}: {Interrupted('interrupted', 130)}", file=sys.stderr)
        return 130


def _settings(name: str) -> Any:
    module, _, model = name.rpartition(".")
    return getattr(importlib.import_module(f"stillreel.configs.{module}"), model)


def _in_words(settings: object) -> str:
    def pairs(values: dict[str, object], prefix: str) -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, dict) and value:
                yield from pairs(value, f"{prefix}{key}.")
            elif value != "":
                yield f"{prefix}{key}={value}"

    return " ".join(pairs(settings.model_dump(), ""))  # type: ignore[attr-defined]


def _command_lines() -> str:
    calls = {" ".join((name, *one.positionals)): one.about for name, one in COMMANDS.items()}
    width = max(map(len, calls)) + 2
    return "\n".join(f"  {call:<{width}}{about}" for call, about in calls.items())


def _help(name: str, command: Command, model: Any) -> str:
    from stillreel.configs.settings import describe

    usage = " ".join(("stillreel", name, *command.positionals))
    lines = [f"{usage} [key=value ...]", f"  {command.about}", "", "settings (defaults):"]
    lines += [f"  {f'{key}={default}':<26} {text}" for key, default, text in describe(model)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
