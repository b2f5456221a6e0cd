"""Frozen settings, their schema, and the YAML presets that fill them.

A preset file holds the keys that a command line has (configs/words.py), dotted ones as groups. Values arrive as text in
both cases (YAML's own guesses, `off` -> False, would make `ray: off` a boolean) and pydantic gives them their types.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic.fields import FieldInfo

from stillreel.configs.errors import RequestError

# Two ways to say one thing: what overrides names one of them, and the other, of what is overridden, goes.
_ALTERNATIVES = (frozenset({"warmup_steps", "warmup_ratio"}),)


class Settings(BaseModel):
    """Base of every settings model: frozen, no unknown keys, errors in a user's words."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # Groups that came later: at their defaults a digest is what it was before.
    later: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def resolve(cls, values: Mapping[str, Any]) -> Self:
        """Validate nested `values`; raise RequestError that names every wrong key, what was given and what is expected."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RequestError("\n".join(_explain(cls, problem) for problem in error.errors())) from None

    def digest(self) -> str:
        """sha256 of the resolved values, as hex: equal settings have equal digests, in any order and on any machine."""
        fields = type(self).model_fields
        usual = {name for name in self.later if getattr(self, name) == fields[name].default}
        return hashlib.sha256(canonical_json(self.model_dump(mode="json", exclude=usual))).hexdigest()

    def changes(self) -> dict[str, Any]:
        """Values that are not the defaults, by path; what has no default is always among them."""
        values = ((one, self._value(one)) for one in settings_of(type(self)))
        return {one.path: value for one, value in values if one.required or value != one.default}

    def as_yaml(self, *, without: Collection[str] = ()) -> str:
        """Every value, but None and the top-level ones in `without`, as YAML that load_preset reads back."""
        import yaml

        values = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=set(without))
        return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1 << 20))

    def _value(self, setting: Setting) -> Any:
        value: Any = self
        for name in setting.names:
            value = getattr(value, name)
        return value


class Setting(NamedTuple):
    """One setting of a model: its dotted path as users write it, the names of the fields that lead to it, its type, its
    default (None where it is required), what it is, and the folder of the presets that it may name."""

    path: str
    names: tuple[str, ...]
    kind: Any
    default: Any
    required: bool
    about: str
    presets: str


class Group(NamedTuple):
    """A group of settings: its dotted path, what it is, and the folder of the presets that fill it, where there are some."""

    path: str
    about: str
    presets: str


def settings_of(model: type[Settings], above: tuple[str, ...] = (), prefix: str = "") -> Iterator[Setting]:
    """Every setting of a model, those of its groups in their places."""
    for name, field in model.model_fields.items():
        path, names = f"{prefix}{field.alias or name}", (*above, name)
        if _is_group(field.annotation):
            yield from settings_of(field.annotation, names, f"{path}.")  # type: ignore[arg-type]
            continue
        required = field.is_required()
        default = None if required else field.get_default(call_default_factory=True)
        yield Setting(path, names, field.annotation, default, required, field.description or "", presets_of(field))


def groups_of(model: type[Settings], prefix: str = "") -> Iterator[Group]:
    """Every group of settings of a model, at any depth."""
    for name, field in model.model_fields.items():
        if _is_group(field.annotation):
            yield Group(f"{prefix}{name}", field.description or "", presets_of(field))
            yield from groups_of(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def named_by(folder: str) -> dict[str, JsonValue]:
    """What a field says that may name a preset of `configs/FOLDER`: `Field(..., json_schema_extra=named_by(FOLDER))`."""
    return {"presets": folder}


def presets_of(field: FieldInfo) -> str:
    """The folder of the presets that a field may name; empty where it names none."""
    extra = field.json_schema_extra
    return str(extra.get("presets", "")) if isinstance(extra, dict) else ""


def choices_of(kind: Any) -> tuple[str, ...]:
    """The words that a setting of this type may be, as they are written; none where it may be anything."""
    if kind is bool:
        return ("true", "false")
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def canonical_json(value: Any) -> bytes:
    """The one JSON spelling of a value: sorted keys, no blanks, UTF-8, no NaN. ValueError for what has none."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None


def load_preset(name: str, folder: str, *, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read `configs/FOLDER/NAME.yaml`, or the YAML file at path NAME. All scalars come back as text.

    `base: NAME` in a preset is another one of its folder, which it changes; `above` are those that led here.
    """
    import yaml

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
                f"{folder}: no preset named {name!r}{nearest(name, known)}. "
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
    return values if base is None else merge(load_preset(base, folder, above=(*above, name)), values)


def expand_preset(value: Any, folder: str) -> Any:
    """A group of settings that may name a preset: `NAME`, or `preset: NAME` among settings that override it."""
    if isinstance(value, str):
        return load_preset(value, folder)
    if isinstance(value, Mapping) and "preset" in value:
        rest = {key: inner for key, inner in value.items() if key != "preset"}
        return merge(load_preset(value["preset"], folder), rest)
    return value


def preset_names(folder: str) -> list[str]:
    """Names of the presets shipped in `configs/FOLDER`, sorted."""
    files = resources.files("stillreel.configs").joinpath(folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of which those in `over` win; of two ways to say one thing, the one that `over` does not use goes."""
    said = [one for group in _ALTERNATIVES if group & over.keys() for one in group]
    merged = {key: value for key, value in base.items() if key not in said}
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` of the name that is most like a word, where one is: of presets and commands, not of settings."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""


def _explain(model: type[Settings], problem: Any) -> str:
    from stillreel.configs.answers import answer, answer_for_group

    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return answer(key, model)
    if problem["type"] in ("model_type", "model_attributes_type") and any(
        key == group.path for group in groups_of(model)
    ):
        return answer_for_group(key, model)
    if problem["type"] == "missing":
        about = {one.path: one.about for one in settings_of(model)}.get(key, "")
        return f"{key}= is missing: {about}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not key:  # of settings that do not fit each other
        return message
    given = (
        f"={problem['input']}" if isinstance(problem["input"], str | int | float | bool) else ""
    )  # a group has no value
    return f"{key}{given}: {message[:1].lower()}{message[1:]}"
