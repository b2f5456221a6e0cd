"""Random edits of bytes and of JSON, and the digests and checksums that a forger would mend after them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

from stillreel.configs.settings import canonical_json

_EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]
_ODD: list[Any] = [
    None, True, -1, 0, 1, 7, 1 << 31, 1 << 62, 1 << 70, 0.5, -1e300, float("nan"), float("inf"),
    "", "x", "../../outside/x", "/tmp/x", "\ud800", "\0", "a\nb", "x" * 5000, [], {}, [[]], {"": 0}, [1] * 100,
]  # fmt: skip


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The bytes after one to four edits."""
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        data = dice.choice(_EDITS)(data, dice) if data else b"x"
    return data


def _flip(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def _number(data: bytes, dice: random.Random) -> bytes:
    width = dice.choice((1, 2, 4, 8))
    at = dice.randrange(len(data))
    value = dice.choice(_EDGES) & ((1 << 8 * width) - 1)
    return data[:at] + value.to_bytes(width, dice.choice(("big", "little"))) + data[at + width :]


def _front(data: bytes, dice: random.Random) -> bytes:
    """A number near the beginning or the end, where headers are."""
    size = min(len(data), 512)
    if dice.random() < 0.6:
        return _number(data[:size], dice) + data[size:]
    return data[:-size] + _number(data[-size:], dice)


def _cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def _delete(data: bytes, dice: random.Random) -> bytes:
    at, length = dice.randrange(len(data)), dice.choice((1, 2, 8, 512, 1000))
    return data[:at] + data[at + length :]


def _insert(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + dice.randbytes(dice.choice((1, 2, 8, 512))) + data[at:]


def _repeat(data: bytes, dice: random.Random) -> bytes:
    at, length = dice.randrange(len(data)), dice.choice((1, 8, 512, 4096))
    return data[: at + length] + data[at:]


def _zero(data: bytes, dice: random.Random) -> bytes:
    at, length = dice.randrange(len(data)), dice.choice((1, 8, 512, 1024))
    return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]


def _digits(data: bytes, dice: random.Random) -> bytes:
    """A number that is written in digits, longer or other."""
    places = [at for at, byte in enumerate(data[:4096]) if 48 <= byte < 58]
    if not places:
        return _flip(data, dice)
    at = dice.choice(places)
    return data[:at] + dice.choice((b"9", b"-1", b"9" * 21, b"8", b"1e9")) + data[at + 1 :]


_EDITS: list[Callable[[bytes, random.Random], bytes]] = [
    _flip, _flip, _number, _front, _front, _cut, _delete, _insert, _repeat, _zero, _digits,
]  # fmt: skip


def mutated_json(data: bytes, dice: random.Random) -> bytes:
    """JSON with a value or a key changed, its own digest mended in most cases; at times its bytes."""
    if dice.random() < 0.2:
        return mutated(data, dice)
    if dice.random() < 0.05:
        return dice.choice((b"[", b'{"a":')) * 100_000
    body = json.loads(data)
    for _ in range(dice.choice((1, 1, 2))):
        body = _changed(body, dice)
    if isinstance(body, dict) and "digest" in body and dice.random() < 0.8:
        del body["digest"]
        try:
            body["digest"] = hashlib.sha256(canonical_json(body)).hexdigest()
        except ValueError:
            body["digest"] = ""
    return json.dumps(body, sort_keys=True, indent=1).encode() + b"\n"


def _changed(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(sorted(value))
        fate = dice.random()
        if fate < 0.12:
            return {name: inner for name, inner in value.items() if name != key}
        if fate < 0.2:
            return {**value, dice.choice(("more", "../x", "")): dice.choice(_ODD)}
        return {**value, key: _changed(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.9:
        at = dice.randrange(len(value))
        fate = dice.random()
        if fate < 0.15:
            return value[:at] + value[at + 1 :]
        if fate < 0.3:
            return [*value[: at + 1], *value[at:]]
        return [*value[:at], _changed(value[at], dice), *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and dice.random() < 0.4:
        return value + dice.choice((-1, 1, 512, -512, 1 << 40))
    return dice.choice(_ODD)


def mutated_tar(data: bytes, dice: random.Random) -> bytes:
    """A tar with bytes of its headers changed and, in most cases, their checksums mended."""
    if dice.random() < 0.3:
        return mutated(data, dice)
    blob = bytearray(data)
    headers = [at for at in range(0, len(blob) - 511, 512) if blob[at + 257 : at + 262] == b"ustar"]
    for at in dice.sample(headers, min(len(headers), dice.choice((1, 1, 2, 3)))):
        what = dice.choice(("kind", "size", "big", "name", "any", "any"))
        if what == "kind":
            blob[at + 156] = dice.choice(b"0\x001234567LKxgSXVNDM")
        elif what == "size":
            blob[at + 124 : at + 136] = b"%011o\0" % dice.choice((0, 1, 511, 513, 1 << 20, 8**11 - 1))
        elif what == "big":
            blob[at + 124 : at + 136] = dice.choice((b"\x80", b"\xff")) + dice.choice(_EDGES).to_bytes(11, "big")
        elif what == "name":
            blob[at : at + 100] = dice.choice((b"../x.jpg", b"\xff.jpg", b".jpg", b"a.", b"", b"x" * 100)).ljust(
                100, b"\0"
            )
        else:
            blob[at + dice.randrange(512)] = dice.randrange(256)
        if dice.random() < 0.85:
            blob[at + 148 : at + 156] = b" " * 8
            blob[at + 148 : at + 156] = b"%06o\0 " % sum(blob[at : at + 512])
    return bytes(blob)
