"""Promise 1 of a build, its other half: whatever of a finished data set is edited, `verify` sees it, and the stream refuses what
the manifest alone shows to be wrong."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillreel.configs import DataError
from stillreel.shards.format.receipt import decode_receipt
from stillreel.shards.stream.stream import open_blend
from tests.making import animate, check, picture_folder, stillreel

Books = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven samples in three shards, one of them rejected."""
    home = tmp_path_factory.mktemp("edits")
    source = picture_folder(home / "stills", 7, width=64, height=48)
    (source / "00003.jpg").write_bytes((source / "00003.jpg").read_bytes()[:300])
    assert animate(source, home / "out", shard_size=3, frames=2, size=32, max_rejects=1) == 0
    assert check(home / "out").problems == []
    return home / "out"


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def troubles(out: Path) -> list[str]:
    try:
        return [str(problem) for problem in check(out).problems]
    except DataError as error:
        return [str(error)]


def edit(path: Path, change: Callable[[Books], object]) -> None:
    """Change a JSON file, and spell it as it was."""
    body = json.loads(path.read_bytes())
    change(body)
    path.write_bytes(json.dumps(body, sort_keys=True, indent=1).encode() + b"\n")


# What is edited in the manifest, what verify says of it, and whether the manifest alone shows it.
EDITS: dict[str, tuple[Callable[[Books], object], str, bool]] = {
    "a shard's name": (
        lambda books: books["shards"][1].update(name="stills-000009"),
        "manifest.json: shards[1].name is 'stills-000009', expected 'stills-000001'",
        True,
    ),
    "written": (
        lambda books: books["shards"][1].update(written=3),
        "manifest.json: shards[1].written is 3, expected 2",
        True,
    ),
    "bytes": (lambda books: books["shards"][0].update(bytes=7), "manifest.json: shards[0].bytes is 7, expected ", True),
    "a shard twice": (
        lambda books: books["shards"].append(books["shards"][2]),
        "manifest.json: shards[3] is {",
        True,
    ),
    "settings": (
        lambda books: books["plans"][0]["settings"].update(seed=5),
        "manifest.json: plans[0].settings.seed is 5, expected 0",
        True,
    ),
    "libraries": (
        lambda books: books["plans"][0]["libraries"].update(numpy="9"),
        "manifest.json: plans[0].libraries.numpy is '9', expected ",
        False,
    ),
    "source": (
        lambda books: books["plans"][0]["source"].update(url="/elsewhere"),
        "manifest.json: plans[0].source.url is '/elsewhere', expected ",
        False,
    ),
    "samples": (
        lambda books: books["plans"][0].update(samples=8),
        "manifest.json: plans[0].samples is 8, expected 7",
        True,
    ),
    "totals": (
        lambda books: books["totals"].update(written=7, rejected={}),
        "manifest.json: totals.rejected.truncated is not there, expected 1",
        True,
    ),
    "a plan's digest": (
        lambda books: books["plans"][0].update(sha256="0" * 64),
        "manifest.json: plans[0].sha256 is '0000",
        False,
    ),
    "a receipt's digest": (
        lambda books: books["shards"][0].update(receipt="0" * 64),
        "manifest.json: shards[0].receipt is '0000",
        False,
    ),
    "a field more": (lambda books: books.update(note="x"), "manifest.json: note is 'x', expected not there", True),
    "a field less": (lambda books: books["totals"].pop("bytes"), "manifest.json: totals.bytes is not there", True),
    "a number of another type": (
        lambda books: books["shards"][0].update(written=3.0),
        "manifest.json: shards[0].written is 3.0, expected 3",
        True,
    ),
    "two shards in the other order": (
        lambda books: books["shards"].reverse(),
        "manifest.json: shards[0].",
        True,
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_manifest_is_compared_field_by_field(name: str, out: Path) -> None:
    change, said, shows_itself = EDITS[name]
    edit(out / "manifest.json", change)
    found = troubles(out)
    assert any(one.startswith(said) for one in found), found
    if shows_itself:
        with pytest.raises(DataError, match=r"manifest\.json is damaged or was edited"):
            open_blend(str(out))


def test_command_names_the_field_and_exits_1(out: Path) -> None:
    edit(out / "manifest.json", lambda books: books["totals"].update(written=9))
    said = stillreel("verify", out)
    assert (said.returncode, "PROBLEM manifest.json: totals.written is 9, expected 6" in said.stdout) == (1, True)
    said = stillreel("stream", out)
    assert (said.returncode, "totals do not add up: written 9, its lines come to 6" in said.stderr) == (1, True)


def test_manifest_is_compared_as_far_as_receipts_are_there(out: Path) -> None:
    (out / "shards" / "stills-000002.json").unlink()
    assert not any("manifest.json" in one for one in troubles(out))
    edit(out / "manifest.json", lambda books: books["shards"][1].update(bytes=1))
    assert any(one.startswith("manifest.json: shards[1].bytes is 1") for one in troubles(out))


def test_receipt_that_was_edited_with_its_digest(out: Path) -> None:
    path = out / "shards" / "stills-000001.json"
    receipt = decode_receipt(path.read_bytes())
    path.write_bytes(type(receipt)(**{**receipt.__dict__, "attempt": 2}).encode())
    assert "stills-000001: its receipt is not the one in the manifest" in troubles(out)


def test_strangers_are_told_and_no_problem(out: Path) -> None:
    (out / "notes.txt").write_text("read me")
    said = stillreel("verify", out)
    assert (said.returncode, "no part of the data set: 'notes.txt'" in said.stdout) == (0, True)


def paths_in(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the leaves of a JSON value are."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [path for key, inner in pairs for path in paths_in(inner, (*above, key))]
    return below or ([above] if above else [])


def other(value: Any, dice: random.Random) -> Any:
    """A JSON value that is not this one."""
    near: list[Any] = [None, dice.randrange(1 << 20), "", "../x", -1, [], {}, True, 1e9]
    if isinstance(value, int | float) and not isinstance(value, bool):
        near += [value + 1, value - 1]
    if isinstance(value, str) and value:
        at = dice.randrange(len(value))
        near += [value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :], value + "0", value[1:]]
    return dice.choice([one for one in near if (type(one), one) != (type(value), value)])


def edited(path: Path, data: bytes, dice: random.Random) -> tuple[bytes, str]:
    """The bytes of a file after one random edit, and which it was."""
    kinds = ["flip", "flip", "replace", "insert", "delete", "append", "cut"]
    kind = dice.choice([*kinds, *(["field"] * 7 if path.suffix == ".json" else [])])
    at = dice.randrange(len(data))
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :], f"flip at {at}"
    if kind == "replace":
        return data[:at] + bytes([(data[at] + 1 + dice.randrange(255)) % 256]) + data[at + 1 :], f"replace at {at}"
    if kind == "insert":
        return data[:at] + dice.choice((b"\0", b" ", b"\n", bytes([dice.randrange(256)]))) + data[
            at:
        ], f"insert at {at}"
    if kind == "delete":
        return data[:at] + data[at + 1 :], f"delete at {at}"
    if kind == "append":
        return data + dice.choice((b"\0", b"\n", bytes(512), bytes(10240))), "append"
    if kind == "cut":
        return data[:at], f"cut at {at}"
    body = json.loads(data)
    where = dice.choice(paths_in(body))
    inner = body
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = other(inner[where[-1]], dice)
    return json.dumps(body, sort_keys=True, indent=1).encode() + b"\n", f"{where} = {inner[where[-1]]!r}"


def unseen(out: Path, seeds: range) -> list[str]:
    files = sorted(path for path in out.rglob("*") if path.suffix in (".tar", ".parquet", ".idx", ".json"))
    missed = []
    for seed in seeds:
        dice = random.Random(seed)
        path = dice.choice(files)
        data = path.read_bytes()
        changed, what = edited(path, data, dice)
        if changed == data:  # a byte inserted among its like
            continue
        path.write_bytes(changed)
        if not troubles(out):
            missed.append(f"{seed}: {path.name}: {what}")
        path.write_bytes(data)
    return missed


def test_random_edits_of_any_file_are_seen(out: Path) -> None:
    assert unseen(out, range(60)) == []


@pytest.mark.slow
def test_many_random_edits_of_any_file_are_seen(out: Path) -> None:
    assert unseen(out, range(60, 600)) == []
