from __future__ import annotations

from pathlib import Path

import pytest

from stillreel.configs import RequestError
from stillreel.configs.system.storage import Folder, Range


def test_draft_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with folder.draft("shards/a.tar") as draft:
        draft.path.write_bytes(b"half")
        assert folder.sizes("shards") == {}, "an unfinished file is no file"
    assert not any(tmp_path.rglob("*.part")), "what is not published is removed"
    with folder.draft("shards/a.tar") as draft:
        draft.path.write_bytes(b"whole")
        draft.publish()
    assert folder.sizes("shards") == {"shards/a.tar": 5}
    folder.publish("shards/a.tar", b"again")
    assert folder.read("shards/a.tar") == b"again"


def test_failed_draft_leaves_the_old_file(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.publish("manifest.json", b"old")

    def fail() -> None:
        with folder.draft("manifest.json") as draft:
            draft.path.write_bytes(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert folder.read("manifest.json") == b"old"


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / ".set-000001.tar.77.abcd.part").write_bytes(b"half")
    (tmp_path / "shards" / "set-000000.tar").write_bytes(b"whole")
    assert Folder(str(tmp_path)).remove_unfinished("shards") == 1
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["set-000000.tar"]


def test_ranges_come_in_order_and_say_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "b").write_bytes(b"xyz")
    wanted = [
        Range("a", 2, 3),
        Range("a", 8, 5),
        Range("none", 0, 4),
        Range("b", 0, -1),
        Range("a", 0, -1),
        Range("", 0, 1),
    ]
    for folder in (Folder(str(tmp_path)), Folder(f"file://{tmp_path}")):
        assert list(folder.read_ranges(wanted)) == [b"234", b"89", None, b"xyz", b"0123456789", None]
    assert list(Folder(str(tmp_path)).read_ranges([Range("a", 0, -1)], most=4)) == [b"0123"]


def test_memory_file_system_is_a_bucket() -> None:
    """fsspec's memory:// goes the way of buckets: no temporary names, ranges in batches."""
    folder = Folder("memory://bucket/prefix")
    folder.publish("shards/a.tar", b"0123456789")
    assert not folder.is_local
    assert folder.sizes("shards") == {"shards/a.tar": 10}
    ranges = [Range("shards/a.tar", at % 10, 1) for at in range(100)]
    assert b"".join(data or b"?" for data in folder.read_ranges(ranges)) == b"0123456789" * 10
    assert list(folder.read_ranges([Range("none", 0, 1)])) == [None]
    assert Folder("memory://bucket").within("prefix").read("shards/a.tar") == b"0123456789"


def test_nonsense_is_a_request_error() -> None:
    for url in ("", "nosuchprotocol://x"):
        with pytest.raises(RequestError):
            Folder(url)
