from __future__ import annotations

from stillreel.animate.clips.planned import PlannedCaptions
from stillreel.shards.format.plan import Listed, PlannedSample


def planned(number: int, *captions: str) -> PlannedSample:
    return PlannedSample(f"k_{number:09d}", "a.tar", str(number), 0, number, 0, 1, captions, None)


def listed(key: str, *captions: str, source: str = "a.tar") -> Listed:
    return Listed(source, key, 0, 1, captions)


def test_each_sample_is_told_from_others_by_source_key_and_captions() -> None:
    rows = [planned(number, f"a dog {number}", "zwei") for number in range(2000)]
    known = PlannedCaptions([*rows, planned(5000), planned(7, "another")])
    assert all(known.same(listed(str(number), f"a dog {number}", "zwei")) for number in range(2000) if number != 7)
    assert known.same(listed("3", "a cat", "zwei")) is False
    assert known.same(listed("3", "a dog 3")) is False
    assert known.same(listed("2000", "a dog 2000", "zwei")) is None
    assert known.same(listed("3", "a dog 3", "zwei", source="b.tar")) is None
    assert known.same(listed("5000", "spoken at last")) is True, "it was rejected for want of a caption"
    assert [known.same(listed("7", *said)) for said in (("another",), ("a dog 7", "zwei"))] == [True, False]
    assert PlannedCaptions([]).same(listed("3")) is None
