"""What an unknown setting is answered: what it is called here, where another codebase calls it so; what
it is spelled like, where that is near enough to be meant; and nothing else, for a look-alike is worse than no answer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from stillreel.configs.settings import Settings, groups_of, settings_of
from stillreel.configs.terms import Synonym, synonyms

_NEAR = 0.85  # difflib's ratio: gramar and grammar have 0.92, gamma and grammar 0.83
_VAGUE = (
    ["name"],
    ["run"],
    ["tag"],
    ["n"],
    ["t"],
    ["q"],
    ["rate"],
    ["source"],
    ["model"],
)  # after a dot they may be anything's
_LIKE_NONE = "--help all lists the settings of this command"
_OF_EVALUATION = ("eval", "val", "validation", "test", "tokenizer", "env")  # their `batch_size` is not the run's


def answer(key: str, model: type[Settings], positionals: Sequence[str] = ()) -> str:
    """One sentence about a setting that `model` does not have."""
    for one in settings_of(model):
        if isinstance(one.default, dict) and key.startswith(f"{one.path}."):
            return f"unknown setting {key!r}: {one.about}"
    paths = [one.path for one in settings_of(model)]
    ends = [path for path in paths if path.endswith(f".{key}")]
    near = _closest(key, paths)
    plain = key.removeprefix("no_")
    if synonym := _synonym(key):
        return f"unknown setting {key!r}: {_told(synonym, model, positionals)}"
    if plain != key and knows(model, plain):
        return f"unknown setting {key!r}: write {plain}=false"
    if ends or near:
        return f"unknown setting {key!r}; did you mean {' or '.join(map(repr, ends[:4] or near))}?"
    if "." not in key and (misspelt := _closest(_plain(key), synonyms())):
        return f"unknown setting {key!r}: {_told(synonyms()[misspelt[0]], model, positionals)}"
    if parts := [
        path for path in paths if _alike(key.rpartition(".")[2], path.rpartition(".")[2]) and _beside(key, path)
    ]:
        return f"unknown setting {key!r}; did you mean {' or '.join(map(repr, parts[:4]))}?"
    return f"unknown setting {key!r}; {_LIKE_NONE}"


def is_like_none(key: str, model: type[Settings]) -> bool:
    """Whether a name is no setting and nothing that one is called or spelled like."""
    return key != "preset" and not knows(model, key) and answer(key, model).endswith(_LIKE_NONE)


def answer_for_group(key: str, model: type[Settings]) -> str:
    """One sentence about a value that is given to a whole group of settings."""
    members = [one.path for one in settings_of(model) if one.path.startswith(f"{key}.")]
    synonym = synonyms().get(_plain(key))
    meant = [one for one in synonym.settings if _path(one) in members] if synonym else []
    told = f": {', '.join(meant or members[:6])}{' ...' * (not meant and len(members) > 6)}"
    return f"{key} is a group of settings, and takes no value of its own{told}"


def knows(model: type[Settings], path: str) -> bool:
    """Whether a model has a setting or a group of this path; what a setting is keyed by (curriculum.5000) may be anything."""
    parent, _, last = path.rpartition(".")
    if any(path == one.path or (last == "preset" and parent == one.path and one.presets) for one in groups_of(model)):
        return True
    return any(
        path == one.path or (isinstance(one.default, dict) and path.startswith(f"{one.path}."))
        for one in settings_of(model)
    )


def _synonym(key: str) -> Synonym | None:
    """The synonym of a whole key, or else of its last parts, unless the parts before them say that it is another's."""
    plain = _plain(key)
    parts = plain.split(".")
    whole = synonyms().get(plain) or synonyms().get(plain.replace(".", ""))
    if whole is not None or parts[0] in _OF_EVALUATION:
        return whole
    ends = [".".join(parts[start:]) for start in range(1, len(parts)) if parts[start:] not in _VAGUE]
    return next((synonyms()[end] for end in ends if end in synonyms()), None)


def _told(synonym: Synonym, model: type[Settings], positionals: Sequence[str]) -> str:
    """The settings of a synonym that this command has, each with what it is; or why it has none."""
    known = {one.path: one.about for one in settings_of(model)} | {one.path: one.about for one in groups_of(model)}
    known |= dict.fromkeys((name.strip("[. ]") for name in positionals), "the positional argument") | {"preset": ""}
    found = []
    for told, gloss in synonym.settings.items():
        if _path(told) in known:
            said = gloss or known[_path(told)].partition(";")[0]
            found.append(f"{told} ({said})" if said else told)
    if found:
        return f"here it is {', '.join(found[:-1])}{' and ' * (len(found) > 1)}{found[-1]}"
    return synonym.otherwise or "this command has nothing of the kind; --help all lists its settings"


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _path(told: str) -> str:
    return told.partition("=")[0]


def _beside(key: str, path: str) -> bool:
    """Whether a key names no group, or about that of the path, or the path is in none: logging.every is not eval.every."""
    group, _, _ = path.rpartition(".")
    above, _, _ = key.rpartition(".")
    return not above or not group or _alike(above, group)


def _closest(word: str, known: Iterable[str]) -> list[str]:
    """The names that are spelled almost like a word, at most two, the closest first."""
    alike = [name for name in known if _alike(word, name)]
    return sorted(alike, key=lambda name: -difflib.SequenceMatcher(None, word, name).ratio())[:2]


def _alike(word: str, other: str) -> bool:
    if sorted(word) == sorted(
        other
    ):  # letters that changed places weigh more in the ratio than they do in a reader's eye
        return True
    return abs(len(word) - len(other)) < 2 and difflib.SequenceMatcher(None, word, other).ratio() >= _NEAR
