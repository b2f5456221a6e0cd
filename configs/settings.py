"""From command-line words and YAML files to frozen settings.

    stillreel animate SOURCE OUT grammar=zoom source.captions=table.tsv
                      ^positionals ^---------- words -----------------^

Words are `key=value`, dotted for nested settings. A preset file holds the same keys; words override it. Values arrive
as text in both cases (YAML's own guesses, `off` -> False, would make `ray: off` a boolean) and pydantic gives them
their types.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from stillreel.configs.errors import RequestError

# Two ways to say one thing: what overrides names one of them, and the other, of what is overridden, goes.
_ALTERNATIVES = (frozenset({"warmup_steps", "warmup_ratio"}),)


class Settings(BaseModel):
    """Base of every settings model: frozen, no unknown keys, errors in a user's words."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def resolve(cls, values: Mapping[str, Any]) -> Self:
        """Validate nested `values`; raise RequestError that names every wrong key, what was given and what is expected."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RequestError("\n".join(_explain(cls, problem) for problem in error.errors())) from None

    def digest(self) -> str:
        """sha256 of the resolved values, as hex: equal settings have equal digests, in any order and on any machine."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one JSON spelling of a value: sorted keys, no blanks, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_words(
    words: Sequence[str],
    positionals: Sequence[str],
    model: type[Settings],
    *,
    presets: str = "",
    folder: str = "presets",
    beyond: Collection[str] = (),
) -> tuple[list[str], dict[str, Any]]:
    """Split command-line words into the named positionals and a nested dictionary of settings.

    A word is a setting when the text before its first `=` looks like a setting's name; so a positional may hold `=`. One in
    brackets may be left out, and is empty then.
    A `preset=FILE` word, of `folder`, is read first and the other words override it; what it says of the settings `beyond`,
    which another command has, is left. Where `presets` names a folder of configs, the first
    positional is a preset in it, read before that. Raises RequestError on missing or extra positionals.
    """
    given: list[str] = []
    values: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key.replace(".", "_").isidentifier():
            _set(values, key, value)
        elif word.startswith("-"):
            raise RequestError(f"{word}: settings are written key=value, without dashes; see --help")
        else:
            given.append(word)
    preset = values.pop("preset", None)
    if preset is not None:
        loaded = load_preset(preset, folder)
        values = _merge({key: value for key, value in loaded.items() if key not in beyond}, values)
    needed = sum(not name.startswith("[") for name in positionals)
    if not needed <= len(given) <= len(positionals):
        expected = " ".join(positionals) or "no positional arguments"
        known = f". {positionals[0]}s: {', '.join(preset_names(presets))}" if presets else ""
        raise RequestError(f"expected {expected}; given {len(given)}: {' '.join(given) or '(none)'}{known}")
    if presets:
        values = _merge(load_preset(given[0], presets), values)
    given += [""] * (len(positionals) - len(given))
    # Keys are checked before anything is opened, so a misspelt one is reported at once.
    model.resolve(values)
    return given, values


def load_preset(name: str, folder: str, *, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read `configs/FOLDER/NAME.yaml`, or the YAML file at path NAME. All scalars come back as text.

    `base: NAME` in a preset is another one of its folder, which it changes; `above` are those that led here.
    """
    if name in above:
        raise RequestError(f"{name} is its own base: {' -> '.join((*above, name))}")
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name).expanduser()
        if not path.is_file():
            raise RequestError(f"{name}: no such preset file")
        text = path.read_text(encoding="utf-8")
    else:
        known = preset_names(folder)
        if name not in known:
            raise RequestError(
                f"{folder}: no preset named {name!r}{_nearest(name, known)}. "
                f"Known: {', '.join(known)}, or a path to a .yaml file"
            )
        text = resources.files("stillreel.configs").joinpath(folder, f"{name}.yaml").read_text(encoding="utf-8")
    try:
        values = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise RequestError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise RequestError(f"{name}: expected `key: value` lines, found {type(values).__name__}")
    base = values.pop("base", None)
    return values if base is None else _merge(load_preset(base, folder, above=(*above, name)), values)


def expand_preset(value: Any, folder: str) -> Any:
    """A group of settings that may name a preset: `NAME`, or `preset: NAME` among settings that override it."""
    if isinstance(value, str):
        return load_preset(value, folder)
    if isinstance(value, Mapping) and "preset" in value:
        rest = {key: inner for key, inner in value.items() if key != "preset"}
        return _merge(load_preset(value["preset"], folder), rest)
    return value


def preset_names(folder: str) -> list[str]:
    """Names of the presets shipped in `configs/FOLDER`, sorted."""
    files = resources.files("stillreel.configs").joinpath(folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def describe(model: type[Settings]) -> Iterable[tuple[str, str, str]]:
    """(key, default, description) of every setting of a model, nested ones dotted: the table behind `COMMAND --help`."""
    for key, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            for inner, default, text in describe(kind):
                yield f"{key}.{inner}", default, text
        else:
            value = None if field.is_required() else field.get_default(call_default_factory=True)
            about = f"{field.description or ''}{' (required)' if field.is_required() else ''}"
            yield key, "" if value is None else str(value), about


def _set(values: dict[str, Any], dotted: str, value: str) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise RequestError(f"{dotted}: {parent} is given both as a value and as a group")
    if last in values:
        raise RequestError(f"{dotted} is given twice")
    values[last] = value


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    said = [one for group in _ALTERNATIVES if group & over.keys() for one in group]
    merged = {key: value for key, value in base.items() if key not in said}
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _nearest(word: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f"; did you mean {match[0]!r}?" if match else ""


def _explain(model: type[Settings], problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = [name for name, _, _ in describe(model)] + ["preset"]
        return f"unknown setting {key!r}{_nearest(key, known)}"
    if problem["type"] == "missing":
        about = {name: text for name, _, text in describe(model)}.get(key, "")
        return f"{key}= is missing: {about}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not key:  # of settings that do not fit each other
        return message
    given = problem["input"] if isinstance(problem["input"], str | int | float | bool) else "..."
    return f"{key}={given}: {message[:1].lower()}{message[1:]}"
