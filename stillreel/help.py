"""What is told of settings: a command's page, short or whole, and the line with which a run begins."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from stillreel.commands import Command
from stillreel.configs.settings import Setting, Settings, choices_of, groups_of, preset_names, settings_of

_WIDTH = 100
_KEYS = 34  # columns of `key=default`; a longer one has a line of its own

# The settings that people change, of commands with more than these.
COMMON = {
    "animate": (
        "store grammar aim frames size seed name source.captions max_side shard_size looks extend dry_run workers ray"
    ),
    "stream": "frames size context_length grammar fresh seed keys simulate steps batch ranks nodes workers start cache",
    "pretrain": (
        "data frames size model init batch micro_batch epochs optimizer.lr optimizer.lr_new eval.data eval.every out "
        "save_every workers"
    ),
    "finetune": (
        "data videos frames context_length video.sampler crop model init batch micro_batch epochs optimizer.lr "
        "optimizer.lr_new out dry_run"
    ),
    "evaluate": (
        "data videos variant frames context_length video.sampler checkpoint model split dual_softmax rerank compare out "
        "batch workers"
    ),
    "study": "out workers most dry_run keep_models main.data main.models main.pairs main.seeds wide.data wide.models wide.seeds",
    "index": "checkpoint frames size video.sampler video.per_second faiss part batch workers device",
}

# Where a setting stands on a page, by its own name or its group's. What is named nowhere comes last.
GROUPS = {
    "Data": (
        "data videos variant allow_missing files column source captions url caption image video queries prepared prepare split "
        "stills heldout contents seed together lanes window fresh curriculum max_bad max_bad_run max_rejects cache cache_gb "
        "attempts retries timeout opt_outs user_agent_token start ranks nodes"
    ),
    "Clips": (
        "store grammar aim frames size context_length crop views render looks max_side min_side max_pixels picture_cpu_seconds "
        "fps quality samples clips"
    ),
    "Model": "model init checkpoint peer quick_gelu",
    "Objective": "objective",
    "Optimization": "batch micro_batch epochs steps optimizer ema wise_ft_alpha",
    "Evaluation": "eval select prompt dual_softmax querybank rerank weight compare k faiss",
    "Run": (
        "out name shard_size resume extend retry_rejects check dry_run keys simulate measure save_every keep_last keep_every "
        "best_metric log_every tracker tensorboard progress page results json towers dtype"
    ),
    "Machine": (
        "device precision compile activation_checkpointing parallel part workers processes threads ray host port max_query "
        "max_upload waiting"
    ),
}


def help_page(name: str, command: Command, model: type[Settings], *, every: bool = False) -> str:
    """The page of a command: its common settings by group, or with `every` all of them."""
    all_of_them = list(settings_of(model))
    shown = all_of_them if every or name not in COMMON else list(_common(model, COMMON[name].split()))
    few = len(shown) < len(all_of_them)
    lines = [
        " ".join(("stillreel", name, *command.positionals, "[key=value ...]")),
        f"  {command.about}",
        "",
        f"{len(shown)} of {len(all_of_them)} settings, with their defaults; --help all shows every one"
        if few
        else "settings, with their defaults",
    ]
    for title, settings in grouped(shown):
        lines += ["", title]
        for setting in settings:
            lines += _entry(setting)
    lines += [
        "",
        "Given as key=value, --key=value or --key value; preset=FILE.yaml reads, --print-config prints them.",
    ]
    return "\n".join(lines)


def digest_line(name: str, settings: Settings) -> str:
    """The line that a run begins with: the digest of its settings, how many are not the defaults, and the first of these."""
    changes = [f"{path}={as_word(value)}" for path, value in settings.changes().items()]
    count = sum(1 for _ in settings_of(type(settings)))
    line = f"stillreel {name}: settings {settings.digest()[:12]}, {len(changes)} of {count} changed"
    for number, change in enumerate(changes):
        longer = f"{line}{' ' if number else ': '}{change}"
        if len(longer) + len(" ...") * (number + 1 < len(changes)) > _WIDTH:
            return f"{line}{' ...' if number else ''}"
        line = longer
    return line


def _common(model: type[Settings], paths: Iterable[str]) -> Iterator[Setting]:
    """The settings of these paths; one that is a group with presets stands for its name."""
    settings = {one.path: one for one in settings_of(model)}
    groups = {one.path: one for one in groups_of(model)}
    for path in paths:
        if path in settings:
            yield settings[path]
        else:
            names = ", ".join(preset_names(groups[path].presets))
            yield Setting(path, (path,), str, None, False, f"{groups[path].about}: {names}, or a YAML file", "")


def grouped(settings: Iterable[Setting]) -> Iterator[tuple[str, list[Setting]]]:
    """(title, settings) of each group of GROUPS, and of what stands in none."""
    left = list(settings)
    places = {name: (title, place) for title, names in GROUPS.items() for place, name in enumerate(names.split())}
    for title in GROUPS:
        found = [(place[1], one) for one in left if (place := places.get(_home(one), ("", 0)))[0] == title]
        if found:
            yield title, [one for _, one in sorted(found, key=lambda pair: pair[0])]
    rest = [one for one in left if _home(one) not in places]
    if rest:
        yield "Other", rest


def _home(setting: Setting) -> str:
    return setting.path.partition(".")[0]


def _entry(setting: Setting) -> list[str]:
    key = f"  {setting.path}={as_word(setting.default)}"
    choices = choices_of(setting.kind)
    about = setting.about + " (required)" * setting.required
    if setting.kind is not bool and not all(choice in about for choice in choices):
        about += f" [{' | '.join(choices)}]"
    told = textwrap.wrap(about, _WIDTH - _KEYS, break_on_hyphens=False) or [""]
    first = [key] if len(key) > _KEYS - 2 else [f"{key:<{_KEYS}}{told.pop(0)}".rstrip()]
    return [*first, *(f"{'':<{_KEYS}}{line}" for line in told)]


def as_word(value: Any) -> str:
    """A value as it is written on a command line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(as_word, value))
    return "" if value == {} else str(value)
