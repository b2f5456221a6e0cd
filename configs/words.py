"""From the words of a command line to the values of settings.

    stillreel animate SOURCE OUT grammar=zoom --frames 12 --source.captions=table.tsv
                      ^positionals ^---------------------- settings ----------------^

A setting is `key=value`, `--key=value` or `--key value`, dotted for one of a group; after dashes `-` may stand for `_`. One
that is true or false may be a bare `--key`, which is true. After a bare `--` there are no settings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from stillreel.configs.answers import answer, is_like_none, knows
from stillreel.configs.errors import RequestError
from stillreel.configs.settings import Setting, Settings, load_preset, merge, preset_names, settings_of

_TRUTHS = ("true", "false", "yes", "no", "on", "off")


def parse_words(
    words: Sequence[str],
    positionals: Sequence[str],
    model: type[Settings],
    *,
    presets: str = "",
    folder: str = "presets",
    beyond: Collection[str] = (),
    complete: bool = True,
) -> tuple[list[str], dict[str, Any]]:
    """Split command-line words into the named positionals and a nested dictionary of settings.

    A word is a setting when the text before its first `=` looks like a setting's name; so a positional may hold `=`. One in
    brackets may be left out, and is empty then; without `complete` any may, and values may be missing. The last one may be
    `[TEXT ...]`: words that nobody quoted, also such as `x=5` where `x` is like no setting, joined; or `RUN ...`: one or more.
    A `preset=FILE` word, of `folder`, is read first and the other words override it; what it says of the settings `beyond`,
    which another command has, is left. Where `presets` names a folder of configs, the first
    positional is a preset in it, read before that. Raises RequestError on unknown settings and missing or extra positionals.
    """
    schema = {one.path: one for one in settings_of(model)}
    given: list[str] = []
    values: dict[str, Any] = {}
    wrong: list[str] = []
    is_text = bool(positionals) and positionals[-1].endswith(" ...]")
    for key, value, word in _told(words, schema):
        if not key or (is_text and word and is_like_none(key, model)):
            given.append(word)
        elif key != "preset" and not knows(model, key):
            wrong.append(answer(key, model, positionals))
        else:
            _set(values, key, value)
    # Keys are checked before anything is opened, so a misspelt one is reported at once.
    if wrong:
        raise RequestError("\n".join(wrong))
    preset = values.pop("preset", None)
    if preset is not None:
        loaded = load_preset(preset, folder)
        values = merge({key: value for key, value in loaded.items() if key not in beyond}, values)
    if is_text and len(given) > len(positionals):
        given[len(positionals) - 1 :] = [" ".join(given[len(positionals) - 1 :])]
    needed = sum(not name.startswith("[") for name in positionals) if complete else 0
    most = len(given) if positionals and positionals[-1].endswith(" ...") else len(positionals)
    if not needed <= len(given) <= most:
        expected = " ".join(positionals) or "no positional arguments"
        known = f". {positionals[0]}s: {', '.join(preset_names(presets))}" if presets else ""
        raise RequestError(f"expected {expected}; given {len(given)}: {' '.join(given) or '(none)'}{known}")
    if presets and given:
        values = merge(load_preset(given[0], presets), values)
    given += [""] * (len(positionals) - len(given))
    if complete:
        model.resolve(values)
    return given, values


def _told(words: Sequence[str], schema: dict[str, Setting]) -> Iterator[tuple[str, str, str]]:
    """(key, value, word) of each setting, the word empty where dashes leave no doubt, and ("", "", word) of each positional."""
    left = deque(words)
    while left:
        word = left.popleft()
        if word == "--":
            yield from (("", "", one) for one in left)
            return
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            key = key.replace("-", "_")
            yield key, value if equals else _value_after(key, left, schema), ""
            continue
        key, equals, value = word.partition("=")
        if equals and key.replace(".", "_").isidentifier():
            yield key, value, word
        elif word.startswith("-"):
            raise RequestError(f"{word}: settings are written key=value, --key=value or --key value; see --help")
        else:
            yield "", "", word


def _value_after(key: str, left: deque[str], schema: dict[str, Setting]) -> str:
    setting = schema.get(key)
    if setting is not None and setting.kind is bool:
        return left.popleft() if left and left[0].lower() in _TRUTHS else "true"
    if left and not left[0].startswith("--"):
        return left.popleft()
    if setting is not None:
        raise RequestError(f"--{key}: a value is expected, as in --{key} VALUE: {setting.about}")
    return "true"  # of a name that is no setting, or of a group: it is answered whatever its value


def _set(values: dict[str, Any], dotted: str, value: str) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RequestError(
                f"{dotted} cannot stand beside {parent}={inner}; write {parent}.preset={inner} for that one"
            )
        values = inner
    if isinstance(values.get(last), dict):
        raise RequestError(f"{dotted}={value} cannot stand beside settings of {last}; write {dotted}.preset={value}")
    if last in values:
        raise RequestError(f"{dotted} is given twice")
    values[last] = value
