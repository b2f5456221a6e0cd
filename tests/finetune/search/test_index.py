"""`stillreel index`: what it makes, what it keeps, what a crash costs, and what it says of damage."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stillreel.configs import DataError, RequestError
from stillreel.configs.video import VideoSettings
from stillreel.finetune.search.features import stored_features
from stillreel.finetune.search.searcher import Searcher
from stillreel.pretrain.evaluation.two_stage.stages import vectors_of_clips
from stillreel.pretrain.model.normalize import normalize
from stillreel.pretrain.video import VideoReader
from tests.finetune.search.conftest import VIDEOS
from tests.finetune.search.making import FRAMES, SIZE, copied, index, opened, write_model, write_videos
from tests.making import SHARED, held_by_another, needs_shared
from tests.pretrain.video.making import write_video
from tests.pretrain.zoo import shaken
from tests.streaming import write_set
from tests.warm import Warm

SETTINGS = VideoSettings(frames=FRAMES, size=SIZE, per_second=2)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_an_index_holds_what_the_model_makes_of_each_video(made: Path, videos: Path) -> None:
    found, model = opened(made), shaken("rerank")
    assert len(found) == VIDEOS and [entry.path for entry in found.entries()] == names_in(videos)
    clips = [VideoReader(SETTINGS).read(videos / entry.path) for entry in found.entries()]
    frames = normalize(torch.from_numpy(np.stack([clip.frames for clip in clips])), dtype=torch.float32)
    with torch.no_grad():
        video = model.encode_video(frames, torch.from_numpy(np.stack([clip.mask for clip in clips])))
    assert np.allclose(found.vectors, vectors_of_clips(video), atol=2e-3)
    assert np.allclose(found.frames, video.frames, atol=2e-2)
    assert np.allclose(found.times, [clip.times for clip in clips])
    kept = stored_features(found, np.arange(VIDEOS), "cpu")
    assert torch.equal(kept.mask, video.mask)
    assert all(entry.duration == pytest.approx(2, abs=0.11) for entry in found.entries())


def test_a_second_run_follows_the_folder_and_decodes_only_what_is_new(
    videos: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, out = Path(shutil.copytree(videos, tmp_path / "videos")), tmp_path / "index"
    assert index(mine, out, checkpoint) == 0
    first = opened(out)
    assert index(mine, out, checkpoint) == 0
    assert f"{VIDEOS} known, 0 to index, 0 gone" in capsys.readouterr().out
    assert opened(out).manifest == first.manifest, "nothing was written"
    (mine / "video-03.mp4").unlink()
    shutil.copy(mine / "video-00.mp4", mine / "another.mp4")
    shutil.copy(mine / "video-01.mp4", mine / "video-02.mp4")
    assert index(mine, out, checkpoint) == 0
    assert f"{VIDEOS - 2} known, 2 to index, 1 gone" in capsys.readouterr().out
    second = opened(out)
    kept = [entry.path for entry in second.entries()]
    assert kept == names_in(mine)
    for name, old in (
        ("video-04.mp4", "video-04.mp4"),
        ("another.mp4", "video-00.mp4"),
        ("video-02.mp4", "video-01.mp4"),
    ):
        assert np.array_equal(second.vectors[second.row_of(name)], first.vectors[first.row_of(old)])
    # Readers keep the old generation, whose files are gone from the folder.
    assert first.vectors.sum() != 0
    assert not [name for name in files_of(out) if "-000000" in name or name.startswith("work")]


def test_other_folders_models_and_settings_are_refused(
    made: Path, videos: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(made, tmp_path / "index")
    other = write_videos(tmp_path / "others", 1)
    model = write_model(tmp_path / "model", "mean")
    for folder, by, settings in (
        (other, checkpoint, {}),
        (videos, model, {}),
        (videos, checkpoint, {"frames": 3}),
    ):
        assert index(folder, out, by, **settings) == 2
        assert "give another OUT, or remove it" in capsys.readouterr().err
    assert index(videos, tmp_path / "x", checkpoint, size=32) == 2
    assert "the model's image tower reads 64; set size=64" in capsys.readouterr().err
    assert index(tmp_path / "nothing", tmp_path / "x", checkpoint) == 2
    assert index(model, tmp_path / "x", checkpoint) == 2
    assert "holds no videos" in capsys.readouterr().err
    assert index(videos, tmp_path / "x", tmp_path / "nothing") != 0


def test_damaged_files_are_listed_and_cost_nobody_else(
    videos: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, out = Path(shutil.copytree(videos, tmp_path / "videos")), tmp_path / "index"
    whole = (mine / "video-00.mp4").read_bytes()
    (mine / "a-cut.mp4").write_bytes(whole[: len(whole) // 2])
    (mine / "b-empty.mp4").write_bytes(b"")
    (mine / "c-text.mp4").write_text("no video")
    (mine / "d-gone.mp4").symlink_to(tmp_path / "nowhere")
    write_video(mine / "e.h264", 10).rename(mine / "e-raw.mp4")
    write_video(mine / "f-anim.GIF", 10, codec="gif", pixel_format="rgb8", options={"b": "2000000"})
    (mine / "g.heic").write_bytes(b"x")
    assert index(mine, out, checkpoint, batch=2, part=3) == 0
    said, told = capsys.readouterr()
    assert "1 files of other endings: .heic 1: passed over" in told
    assert "e-raw.mp4: left out: not_a_video" in said
    for line in ("b-empty.mp4: left out: empty", "c-text.mp4: left out: not_a_video", "d-gone.mp4: left out: missing"):
        assert line in said, said
    found = opened(out)
    assert len(found) + found.manifest["damaged"] == VIDEOS + 6
    assert found.row_of("f-anim.GIF") >= 0
    for entry in found.entries():
        assert entry.row >= 0 or entry.reason
    # What may pass is tried again, the others are not.
    (mine / "d-gone.mp4").unlink()
    shutil.copy(mine / "video-00.mp4", mine / "d-gone.mp4")
    assert index(mine, out, checkpoint) == 0
    assert "1 to index" in capsys.readouterr().out
    assert opened(out).row_of("d-gone.mp4") >= 0


def test_a_folder_of_nothing_but_damage_is_an_error_that_names_it(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(3):
        (tmp_path / "videos" / f"{number}.mp4").write_bytes(b"")
    assert index(tmp_path / "videos", tmp_path / "index", checkpoint) == 1
    assert "none of the 3 videos could be read: 3 empty. First: 0.mp4" in capsys.readouterr().err


def test_a_killed_run_goes_on_and_ends_with_the_same_features(
    videos: Path, checkpoint: Path, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    words = ["index", videos, out, f"checkpoint={checkpoint}", f"frames={FRAMES}", f"size={SIZE}"]
    words += ["video.per_second=2", "device=cpu", "batch=1", "part=1"]
    process = Warm("stillreel", [*map(str, words)])
    end = time.monotonic() + 120
    while len(list(out.glob("work-*/part-*.safetensors"))) < 2 and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not (out / "manifest.json").exists():
        with pytest.raises(RequestError, match="it is not finished; run `stillreel index` again"):
            opened(out)
    parts = sorted(out.glob("work-*/part-*.safetensors"))
    if parts:
        parts[0].write_bytes(parts[0].read_bytes()[:50])  # as a loss of power may leave it
    assert index(videos, out, checkpoint) == 0
    ours, theirs = opened(out), opened(made)
    assert np.allclose(ours.vectors, theirs.vectors, atol=2e-3)
    assert not list(out.glob("work-*")) and not list(out.glob(".*.part"))


def test_two_runs_at_once_are_refused(
    videos: Path, checkpoint: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(made, tmp_path / "index")
    with held_by_another(out):
        assert index(videos, out, checkpoint) == 2
    assert f"OUT {out}: another stillreel is writing it" in capsys.readouterr().err


def test_clips_of_shards_are_indexed_by_tar_and_key(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_set(tmp_path / "clips", [4, 3])
    out = tmp_path / "index"
    assert index(data, out, checkpoint, batch=3) == 0
    found = opened(out)
    assert len(found) == 7
    assert found.entry(0).path == "shards/clips-000000.tar/clips_000000000"
    assert found.entry(6).path == "shards/clips-000001.tar/clips_000000006"
    assert found.times[0].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert index(data, out, checkpoint) == 0
    assert "7 known, 0 to index" in capsys.readouterr().out
    tar = data / "shards" / "clips-000001.tar"
    with tar.open("r+b") as file:
        file.seek(600)
        file.write(b"XXXXXXXX")
    assert index(data, tmp_path / "other", checkpoint) == 0
    assert "clips-000001.tar/clips_000000004: left out: corrupt" in capsys.readouterr().out
    (data / "shards" / "clips-000000.idx").write_bytes(b"junk")
    assert index(data, tmp_path / "third", checkpoint) == 0
    assert "clips-000000.tar: left out: corrupt" in capsys.readouterr().out
    assert len(opened(tmp_path / "third")) == 2


def damages(folder: Path) -> dict[str, Path]:
    return {path.name.partition("-")[0]: path for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.parametrize("name", ["vectors", "frames", "times", "videos", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "gone", "junk", "empty"])
def test_a_corrupt_index_is_a_clean_error(made: Path, tmp_path: Path, name: str, how: str) -> None:
    out = copied(made, tmp_path / "index")
    file = damages(out)[name]
    data = file.read_bytes()
    match how:
        case "cut":
            file.write_bytes(data[:-9])
        case "gone":
            file.unlink()
        case "junk":
            file.write_bytes(b"J" * len(data))
        case "empty":
            file.write_bytes(b"")
    with pytest.raises((DataError, RequestError), match=r"is damaged|is missing|is no index"):
        opened(out)


def test_a_flipped_byte_is_found_by_the_next_run_which_makes_the_index_anew(
    made: Path, videos: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(made, tmp_path / "index")
    file = damages(out)["vectors"]
    data = bytearray(file.read_bytes())
    data[-3] ^= 0x40
    file.write_bytes(data)
    with pytest.raises(DataError, match="sha256"):
        opened(out).check()
    assert index(videos, out, checkpoint) == 0
    assert "what was indexed before is not used" in capsys.readouterr().err
    opened(out).check()
    assert np.array_equal(opened(out).vectors, opened(made).vectors)


def test_a_table_that_names_other_rows_is_refused(made: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    out = copied(made, tmp_path / "index")
    file = damages(out)["videos"]
    table = pa.ipc.open_file(file).read_all()
    bad = table.set_column(table.schema.get_field_index("row"), table.schema.field("row"), pa.array([0] * VIDEOS))
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(bad)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"][file.name]["bytes"] = file.stat().st_size
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="two files have the same row"):
        opened(out)


@needs_shared
def test_real_videos_are_indexed_and_found_by_themselves(checkpoint: Path, tmp_path: Path) -> None:
    clips = SHARED / "data" / "videos" / "msrvtt"
    assert index(clips, tmp_path / "index", checkpoint, video__per_second=1) == 0
    searcher = Searcher(opened(tmp_path / "index"), device="cpu")
    settings = VideoSettings(frames=FRAMES, size=SIZE)
    for row in range(0, len(searcher.index), 3):
        entry = searcher.index.entry(row)
        clip = VideoReader(settings).read(clips / entry.path)
        best, *_ = searcher.by_frames(clip.frames, clip.mask, 3)
        assert best.path == entry.path and best.coarse == pytest.approx(1, abs=2e-3)


@needs_shared
@pytest.mark.slow
def test_damaged_videos_of_the_world_stop_nothing(checkpoint: Path, tmp_path: Path) -> None:
    assert index(SHARED / "data" / "nasty" / "videos", tmp_path / "index", checkpoint) == 0
    found = opened(tmp_path / "index")
    assert len(found) >= 55 and found.manifest["damaged"] >= 10


def test_a_video_of_one_frame_is_padded(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "one.mp4", 1)
    assert index(tmp_path / "videos", tmp_path / "index", checkpoint) == 0
    found = opened(tmp_path / "index")
    assert (~np.isnan(found.times)).sum() == 1 and np.isfinite(found.vectors).all()
