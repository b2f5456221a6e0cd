"""`stillreel select` and `reshard`: the samples that are asked for, as they are, under new keys, and the books that say so."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stillreel.configs import DataError, RequestError
from stillreel.configs.select import ReshardSettings, SelectSettings
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.survey import survey
from stillreel.shards.commands import reshard as resharding
from stillreel.shards.commands import select as selecting
from stillreel.shards.commands.stats import collect
from stillreel.shards.format.manifest import Manifest, manifest_of, read_manifest
from stillreel.shards.format.plan import read_plans
from stillreel.shards.format.receipt import FileStamp, read_receipt
from stillreel.shards.selection.choice import folds
from tests.making import (
    animate,
    check,
    data_digests,
    jpeg,
    members_of_tars,
    picture,
    picture_folder,
    rows_of,
    stillreel,
)
from tests.shards.build import numbers
from tests.streaming import read_steps, settings_of


def select(clips: object, out: Path, **settings: object) -> Manifest:
    values = SelectSettings.resolve({"progress": "off", **settings})
    return selecting.select(str(clips), Folder(str(out)), values)


def reshard(clips: object, out: Path, **settings: object) -> None:
    assert resharding.run(str(clips), str(out), ReshardSettings.resolve({"progress": "off", **settings})) == 0


def sources_of(out: Path) -> set[tuple[object, object]]:
    return {(row["source"], row["source_key"]) for row in rows_of(out) if row["status"] == "written"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`a`: 20 pictures in shards of eight, one of which is junk. `b`: five of these as they are, five encoded again and smaller,
    five others; filmed by another grammar."""
    home = tmp_path_factory.mktemp("sets")
    first = picture_folder(home / "first", 20, width=240, height=180)
    (first / "00007.jpg").write_bytes(b"junk")
    second = home / "second"
    second.mkdir()
    for number in range(10, 15):
        (second / f"same{number}.jpg").write_bytes(jpeg(number, 240, 180))
    for number in range(15, 20):
        smaller = Image.fromarray(picture(number, 240, 180)).resize((200, 150), Image.Resampling.LANCZOS)
        smaller.save(second / f"near{number}.jpg", quality=70)
    for number in range(30, 35):
        (second / f"other{number}.jpg").write_bytes(jpeg(number, 240, 180))
    names = sorted(path.name for path in second.glob("*.jpg"))
    (second / "captions.tsv").write_text("file\tcaption\n" + "".join(f"{name}\ta picture\n" for name in names))
    assert animate(first, home / "a", shard_size=8, name="a") == 0
    assert animate(second, home / "b", shard_size=6, name="b", grammar="zoom") == 0
    return {"a": home / "a", "b": home / "b"}


def test_samples_are_copied_as_they_are(sets: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = select(
        sets["a"], out, where="width == 240 and not endswith(source_key, '3.jpg')", shard_size=5, name="some"
    )
    assert not check(out).problems
    assert manifest.totals.planned == manifest.totals.written == 17
    assert manifest.plans[0].left_out == {"not_an_image": 1, "where": 2}
    assert [line.written for line in manifest.shards] == [5, 5, 5, 2]
    before = {row["source_key"]: row for row in rows_of(sets["a"])}
    members, parents = members_of_tars(out), members_of_tars(sets["a"])
    for number, row in enumerate(rows_of(out)):
        parent = before[row["source_key"]]
        assert row["key"] == f"some_{number:09d}"
        assert {**row, "key": 0, "sha256": 0} == {**parent, "key": 0, "sha256": 0}
        for ending in ("jpg", "json", "txt"):
            assert members[f"{row['key']}.{ending}"] == parents[f"{parent['key']}.{ending}"]
    assert len(members) == 3 * 17


def test_resharding_there_and_back_gives_the_same_bytes(sets: dict[str, Path], tmp_path: Path) -> None:
    reshard(sets["b"], tmp_path / "small", shard_size=2)
    assert len(read_manifest(Folder(str(tmp_path / "small"))).shards) == 8
    reshard(tmp_path / "small", tmp_path / "back", shard_size=6)
    own, back = data_digests(sets["b"]), data_digests(tmp_path / "back")
    assert own.keys() == back.keys()
    assert {name for name in own if own[name] != back[name]} == {"plan-000.parquet"}, "which has the parents"
    assert not check(tmp_path / "back").problems


@pytest.mark.parametrize(
    "choice", [{"unique": "exact"}, {"unique": "near"}, {"sample": 9, "seed": 3}, {"where": "fold < 0.5"}]
)
def test_what_is_taken_depends_neither_on_workers_nor_on_the_order_of_the_sets(
    sets: dict[str, Path], tmp_path: Path, choice: dict[str, Any]
) -> None:
    a, b = sets["a"], sets["b"]
    reshard(b, tmp_path / "b", shard_size=4)
    outs = {name: tmp_path / name for name in ("one", "two", "four", "turned", "other shards")}
    select(f"{a},{b}", outs["one"], **choice)
    for name, workers in (("two", 2), ("four", 4)):
        select(f"{a},{b}", outs[name], workers=workers, **choice)
    select(f"{b},{a}", outs["turned"], **choice)
    select(f"{tmp_path / 'b'},{a}", outs["other shards"], **choice)
    assert data_digests(outs["one"]) == data_digests(outs["two"]) == data_digests(outs["four"])
    taken = {name: sources_of(out) for name, out in outs.items()}
    assert taken["one"] == taken["turned"] == taken["other shards"]
    samples = [
        sorted((row["source_key"], hashlib.sha256(members[f"{row['key']}.json"]).hexdigest()) for row in rows_of(out))
        for out in outs.values()
        for members in [members_of_tars(out)]
    ]
    assert samples[0] == samples[3] == samples[4], "and each with the recipe that it had"
    assert not any(check(out).problems for out in outs.values())


def test_of_duplicates_the_largest_is_taken(sets: dict[str, Path], tmp_path: Path) -> None:
    clips = f"{sets['b']},{sets['a']}"
    manifest = select(clips, tmp_path / "exact", unique="exact")
    left_out = sum((Counter(plan.left_out) for plan in manifest.plans), Counter())
    assert left_out == {"duplicate": 5, "not_an_image": 1}
    manifest = select(clips, tmp_path / "near", unique="near")
    left_out = sum((Counter(plan.left_out) for plan in manifest.plans), Counter())
    assert left_out == {"near_duplicate": 10, "not_an_image": 1}
    kept = {str(key) for _, key in sources_of(tmp_path / "near")}
    assert {key for key in kept if "near" in key} == set(), "smaller than the ones they were made of"
    assert len(kept) == 24


def test_splits_are_apart_and_complete(sets: dict[str, Path], tmp_path: Path) -> None:
    select(sets["a"], tmp_path / "train", where="fold < 0.7")
    select(sets["a"], tmp_path / "test", where="fold >= 0.7")
    train, test = sources_of(tmp_path / "train"), sources_of(tmp_path / "test")
    assert not train & test and train | test == sources_of(sets["a"])
    select(f"{sets['a']},{sets['b']}", tmp_path / "more", where="fold < 0.7")
    assert sources_of(tmp_path / "more") >= train, "what else is there does not matter"


def test_folds_are_uniform() -> None:
    drawn = [folds(seed, pa.table({"source": ["s"] * 2000, "source_key": [*map(str, range(2000))]})) for seed in (0, 1)]
    for one in drawn:
        counts = np.histogram(one.to_numpy(), bins=10, range=(0, 1))[0]
        assert counts.sum() == 2000 and counts.min() > 140 and counts.max() < 260
    assert abs(np.corrcoef(*drawn)[0, 1]) < 0.1


def test_sets_that_were_filmed_otherwise_are_merged_and_read_as_one(sets: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = select(f"{sets['a']},{sets['b']}", out, shard_size=7)
    assert [plan.settings["grammar"] for plan in manifest.plans] == ["film", "zoom"]
    assert [plan.samples for plan in manifest.plans] == [19, 15]
    digests = [[plan.digest for plan in read_plans(Folder(str(sets[name])))] for name in "ab"]
    assert [one["plans"] for one in manifest.plans[1].source["clips"]] == digests
    assert not check(out).problems
    batches, _ = read_steps(out, settings_of(fresh=True), batch=34, steps=1)
    assert len({line.split()[0] for line in batches[0]}) == 34


@pytest.fixture
def unfinished(sets: dict[str, Path], tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A merge of copies of both sets into `out`, and the bytes that it must have."""
    for name, out in sets.items():
        shutil.copytree(out, tmp_path / name)
    select(f"{tmp_path / 'a'},{tmp_path / 'b'}", tmp_path / "out", shard_size=7)
    return tmp_path, data_digests(tmp_path / "out")


@pytest.mark.parametrize("lost", ["plan-001.parquet", "shards/a-000001.json", "shards/a-000004.tar", "manifest.json"])
def test_what_a_kill_left_is_gone_on_with(unfinished: tuple[Path, dict[str, str]], lost: str) -> None:
    home, expected = unfinished
    out = home / "out"
    (out / "manifest.json").unlink()
    (out / lost).unlink(missing_ok=True)
    if lost.startswith("plan"):
        shutil.rmtree(out / "shards")
    moved = (home / "b").rename(home / "moved")
    select(f"{home / 'a'},{moved}", out, shard_size=7)
    assert data_digests(out) == expected
    assert not check(out).problems


@pytest.mark.parametrize("part", ["tar", "idx", "parquet"])
def test_a_set_that_is_damaged_is_named_and_not_copied(unfinished: tuple[Path, dict[str, str]], part: str) -> None:
    home, _ = unfinished
    path = home / "a" / "shards" / f"a-000001.{part}"
    data = bytearray(path.read_bytes())
    data[2000 if part == "tar" else len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="a-000001"):
        select(home / "a", home / "new", attempts=1)
    assert not (home / "new" / "manifest.json").exists()


def test_samples_of_a_set_that_was_built_again_from_others_are_not_mixed_in(
    unfinished: tuple[Path, dict[str, str]],
) -> None:
    home, _ = unfinished
    shutil.rmtree(home / "b")
    assert animate(picture_folder(home / "third", 15), home / "b", shard_size=6, name="b", grammar="zoom") == 0
    (home / "out" / "manifest.json").unlink()
    with pytest.raises(RequestError, match="was begun with other CLIPS or settings"):
        select(f"{home / 'a'},{home / 'b'}", home / "out", shard_size=7)


@pytest.mark.parametrize(
    ("clips", "settings", "why"),
    [
        ("{a}", {"where": "widht > 3"}, "no column widht; did you mean 'width'"),
        ("{a}", {"where": "width > 9999"}, "no sample is left; left out: where 19, not_an_image 1"),
        ("{a}", {"sample": 20}, "sample=20: only 19 samples are left"),
        ("{a},{a}", {}, "names .* twice"),
        ("{a}*2,{b}", {}, "a weight says how often a stream reads"),
        ("{a}/shards", {}, "is no finished data set"),
        ("{a},", {}, "expected a path or URL, given an empty one"),
        ("{frames},{a}", {}, "has store=recipe, not frames as the first of CLIPS"),
        ("{frames}", {"unique": "exact"}, "which store=frames does not keep; use unique=near distance=0"),
        ("{out}", {}, "lie in each other"),
        ("{numbers}", {}, "holds no clips: `stillreel animate` did not make it"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    sets: dict[str, Path], built: dict[str, Path], tmp_path: Path, clips: str, settings: dict[str, Any], why: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(sets["b"], out / "inner")
    numbers.run(tmp_path / "numbers")
    given = clips.format(**sets, numbers=tmp_path / "numbers", frames=built["frames"], out=out / "inner")
    with pytest.raises(RequestError, match=why):
        select(given, out, **settings)
    assert {path.name for path in out.iterdir()} <= {"inner", ".lock"}


def test_an_out_that_holds_something_else_is_left_as_it_is(sets: dict[str, Path], stills: Path, tmp_path: Path) -> None:
    shutil.copytree(sets["b"], tmp_path / "built")
    with pytest.raises(RequestError, match="holds samples that were built there"):
        select(sets["a"], tmp_path / "built")
    numbers.run(tmp_path / "numbers")
    with pytest.raises(RequestError, match="was planned with other settings"):
        animate(stills, tmp_path / "numbers")
    select(sets["a"], tmp_path / "out", sample=3)
    for other in ({"sample": 4}, {"sample": 3, "seed": 1}, {"sample": 3, "shard_size": 2}):
        with pytest.raises(RequestError, match="was begun with other CLIPS or settings"):
            select(sets["a"], tmp_path / "out", **other)
    select(sets["a"], tmp_path / "out", sample=3, workers=2)
    with pytest.raises(RequestError, match="holds samples that `stillreel select` copied"):
        animate(stills, tmp_path / "out", name="a", shard_size=8)


def without_hashes(out: Path) -> Path:
    """Make of a data set what it would have been before tables had phash."""
    folder = Folder(str(out))
    plans = read_plans(folder)
    receipts = []
    for plan in plans:
        for name in map(plan.shard_name, plan.shard_numbers):
            path = out / "shards" / f"{name}.parquet"
            pq.write_table(pq.read_table(path).drop_columns(["phash"]), path, compression="zstd")
            stamp = FileStamp(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
            receipt = read_receipt(folder, name)
            receipts.append(dataclasses.replace(receipt, files={**receipt.files, "parquet": stamp}))
            (out / "shards" / f"{name}.json").write_bytes(receipts[-1].encode())
    (out / "manifest.json").write_bytes(manifest_of(plans, receipts).encode())
    return out


def test_a_data_set_of_before_there_were_hashes_is_read_proven_extended_and_copied(
    sets: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(sets["a"], tmp_path / "old")
    old = without_hashes(tmp_path / "old")
    assert not check(old).problems
    folder = Folder(str(old))
    plans = read_plans(folder)
    assert collect(folder, plans, survey(folder, plans, full=True))["written"] == 19
    manifest = select(f"{old},{sets['b']}", tmp_path / "exact", unique="exact")
    assert sum((Counter(plan.left_out) for plan in manifest.plans), Counter())["duplicate"] == 5
    with pytest.raises(RequestError, match="old was built before tables had phash; build it anew, or use unique=exact"):
        select(f"{sets['b']},{old}", tmp_path / "near", unique="near")
    assert animate(picture_folder(tmp_path / "more", 5), old, extend="new", shard_size=8) == 0
    assert not check(old).problems
    hashed = [row.get("phash") is not None for row in rows_of(old)]
    assert hashed == [False] * 20 + [True] * 5


def test_the_commands_print_the_sum_and_what_is_left_out(sets: dict[str, Path], tmp_path: Path) -> None:
    done = stillreel("select", sets["a"], tmp_path / "out", "where=width > 9", "unique=near", "sample=4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("planned 4 = written 4 + rejected 0; 1 shards, ")
    assert "left out of CLIPS: not_sampled 15, not_an_image 1\n" in done.stdout
    assert stillreel("verify", tmp_path / "out").returncode == 0
    done = stillreel("reshard", sets["a"], tmp_path / "more", "shard_size=15")
    assert done.stdout.startswith("planned 19 = written 19 + rejected 0; 2 shards, "), done.stderr
    refused = stillreel("select", sets["a"], tmp_path / "none", "where=width >")
    assert refused.returncode == 2 and "it cannot be read at its end" in refused.stderr
    assert not (tmp_path / "none").exists()


def test_all_stores_are_copied(built: dict[str, Path], tmp_path: Path) -> None:
    for store, parent in built.items():
        out = tmp_path / store
        select(parent, out, unique="near", distance=0, sample=5)
        assert not check(out).problems
        plan = json.loads((out / "manifest.json").read_bytes())["plans"][0]
        assert plan["settings"] == json.loads((parent / "manifest.json").read_bytes())["plans"][0]["settings"]
        taken = pc.unique(pa.array(name.partition(".")[2] for name in members_of_tars(out))).to_pylist()
        assert {*taken} == {name.partition(".")[2] for name in members_of_tars(parent)}
