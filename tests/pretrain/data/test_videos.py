"""Real videos in the stream: tars as video2dataset writes them, their frames, their captions, and what is wrong with some."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from stillreel.configs import DataError, RequestError, StillreelError
from stillreel.configs.stream import DataSettings
from stillreel.configs.system.dice import Dice
from stillreel.configs.video import VideoOptions, VideoSettings
from stillreel.pretrain.data import ClipBatch, ClipLoader, Share
from stillreel.pretrain.evaluation.held_out import HeldOutClips, choose_samples
from stillreel.pretrain.video import VideoError, VideoReader
from stillreel.pretrain.video.beside import VideoDecoder
from stillreel.shards.stream.stream import open_blend
from tests.making import ROOT, jpeg, stillreel, write_tar
from tests.pretrain.data.video_tars import catalog, failed, sample_of, sound, video, write_shard, write_videos
from tests.streaming import settings_of, write_set

SAMPLERS = ["fps", "segments", "clip2video"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos"), [5, 3])


def read(data: Path | str, steps: int = 1, batch: int = 8, **values: object) -> list[ClipBatch]:
    return list(ClipLoader(open_blend(str(data)), settings_of(**values), Share(batch), steps=steps))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_frames_are_those_of_the_published_samplers(sampler: str, videos: Path, tmp_path: Path) -> None:
    """As finetuning reads the same file, in each epoch with other draws."""
    batches = read(videos, 2, frames=4, seed=3, video={"sampler": sampler})
    reader = VideoReader(VideoSettings.resolve({"sampler": sampler, "frames": 4, "size": 32}))
    seen: list[set[bytes]] = []
    for epoch, batch in enumerate(batches):
        assert sorted(batch.keys) == [f"{number:09d}" for number in range(8)]
        assert batch.frames is not None and batch.mask is not None
        seen.append(set())
        for key, caption, frames, mask in zip(batch.keys, batch.captions, batch.frames, batch.mask, strict=True):
            file = tmp_path / f"{key}.mp4"
            file.write_bytes(sample_of(int(key))[0][1])
            clip = reader.read(file, dice=Dice(3, f"{key}\0{epoch}"))
            assert np.array_equal(frames.numpy(), clip.frames) and mask.tolist() == clip.mask.tolist()
            assert caption == f"video {int(key)}"
            seen[-1].add(frames.numpy().tobytes())
    assert (seen[0] == seen[1]) == (sampler != "segments"), "clip2video draws of longer videos only, fps never"


def test_a_clip_has_fewer_frames_where_the_video_is_short(videos: Path) -> None:
    (batch,) = read(videos, frames=4)
    assert batch.mask is not None and batch.frames is not None
    shown = {int(key): int(mask.sum()) for key, mask in zip(batch.keys, batch.mask, strict=True)}
    assert shown == {number: 1 + number % 4 for number in range(8)}, "of 0.8, 1.7, 2.6 and 3.5 seconds"
    assert not batch.frames[~batch.mask].any()


def test_stills_and_videos_in_one_batch(videos: Path, tmp_path: Path) -> None:
    stills = write_set(tmp_path / "stills", [20])
    batches = read(f"{stills}*3,{videos}*1", 4, frames=3, context_length=8)
    real = [key.isdecimal() for batch in batches for key in batch.keys]
    assert 2 < sum(real) < 16 and len(real) == 32
    for batch in batches:
        assert batch.mask is not None and batch.token_ids is not None
        full = batch.mask.all(dim=1).tolist()
        assert all(one or key.isdecimal() for one, key in zip(full, batch.keys, strict=True))
    (alone,) = read(stills, frames=3)
    assert alone.mask is None


@pytest.mark.parametrize("ending", ["webm", "mkv", "avi", "mov", "MP4"])
def test_videos_of_any_kind(ending: str, tmp_path: Path) -> None:
    members = [(f"a.{ending}", video(1, 30, ending.lower())), ("a.json", b'{"caption": "a dog"}'), ("a.m4a", b"sound")]
    write_tar(tmp_path / "tars" / "0.tar", members)
    assert catalog(tmp_path / "tars", tmp_path / "out") == 0
    (batch,) = read(tmp_path / "out", batch=1)
    assert batch.captions == ["a dog"] and batch.damage == []


def test_captions_of_text_of_json_and_of_a_named_field(tmp_path: Path) -> None:
    said = {"caption": "short", "captions": [], "dense_caption": "a long one", "enriched": ["one", "two", "three"]}
    members = [("a.mp4", video()), ("a.txt", b"as text"), ("a.json", json.dumps(said).encode())]
    write_tar(tmp_path / "tars" / "0.tar", members)
    assert catalog(tmp_path / "tars", tmp_path / "out") == 0

    def spoken(field: str) -> list[str]:
        batches = read(tmp_path / "out", 12, batch=1, source={"caption": field})
        return [caption for batch in batches for caption in batch.captions]

    assert set(spoken("")) == set(spoken("txt")) == {"as text"}
    assert set(spoken("caption")) == {"short"}
    assert set(spoken("dense_caption")) == {"a long one"}
    assert set(spoken("enriched")) == {"one", "two", "three"}, "one of them, drawn in every epoch"
    with pytest.raises(DataError, match="no_caption: it has no other"):
        spoken("other")


def test_what_could_not_be_downloaded_is_no_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stats = {"successes": 2, "failed_to_download": 2}
    write_shard(tmp_path / "tars", 0, [sample_of(0), failed(1), sample_of(2), failed(3)], stats)
    write_shard(tmp_path / "tars", 1, [sample_of(4), sample_of(5)], {"successes": 1})  # two clips of one video
    assert catalog(tmp_path / "tars", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "left out: 2 samples that have no picture and no video, but texts alone" in said
    assert "2 tars, 4 samples (json+mp4+txt 4)" in said
    write_shard(tmp_path / "tars", 1, [sample_of(4)], {"successes": 2})
    assert catalog(tmp_path / "tars", tmp_path / "out") == 1
    assert "PROBLEM 00001.tar: holds 1 samples; video2dataset counted 2" in capsys.readouterr().out


FAULTS = {
    "no container": ([("k.mp4", b"\0" * 4000)], "not_a_video"),
    "cut": ([("k.mp4", video(1)[: len(video(1)) // 3])], "not_a_video"),
    "no bytes": ([("k.mp4", b"")], "empty"),
    "sound alone": ([("k.mp4", sound())], "no_video"),
    "one frame": ([("k.mp4", video(1, 1))], "it has one frame, which is a still"),
    "two videos": ([("k.mp4", video(1)), ("k.webm", video(1, 30, "webm"))], "2 videos among mp4, webm"),
    "no caption": ([("k.mp4", video(1)), ("k.txt", b" ")], "no_caption"),
    "too large": ([("k.mp4", video(1, 9))], "too_large: 64 x 48 pixels; max_pixels is 3000"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_video_is_named_and_passed_over(fault: str, tmp_path: Path) -> None:
    members, what = FAULTS[fault]
    texts = [] if fault == "no caption" else [("k.txt", b"a dog")]
    stills = [(f"{number}.{end}", data) for number in range(7) for end, data in (("jpg", jpeg()), ("txt", b"a cat"))]
    write_tar(tmp_path / "tars" / "0.tar", [*members, *texts, *stills])
    assert catalog(tmp_path / "tars", tmp_path / "out") == 0
    rules = settings_of(max_bad=1, video={"max_pixels": 3000 if fault == "too large" else 10000})
    loader = ClipLoader(open_blend(str(tmp_path / "out")), rules, Share(8), steps=1)
    (batch,) = loader
    assert "k" not in batch.keys and batch.whole.count(False) == 1
    (said,) = loader.damage
    assert said.startswith(f"{tmp_path / 'tars'}, k: ") and what in said


def test_a_video_that_could_be_read_although_it_is_damaged_is_used_and_named(tmp_path: Path) -> None:
    holed = bytearray(video(1))
    begin = holed.index(b"mdat")
    size = int.from_bytes(holed[begin - 4 : begin])
    holed[begin + size // 2 : begin + size * 3 // 4] = bytes(size * 3 // 4 - size // 2)
    write_tar(tmp_path / "tars" / "0.tar", [("k.mp4", bytes(holed)), ("k.txt", b"a dog")])
    assert catalog(tmp_path / "tars", tmp_path / "out") == 0
    (batch,) = read(tmp_path / "out", batch=1, frames=12, video={"sampler": "segments"})
    assert batch.keys == ["k"] and batch.whole == [True]
    assert len(batch.damage) == 1 and batch.damage[0].startswith("k.mp4: corrupt: ")


_DEADLY = """
import os, signal
from stillreel.pretrain.video import reader

begin = reader.FrameDecoder.__init__

def deadly(self, video, max_seconds):
    if video.path.stat().st_size == {size}:
        {does}
    begin(self, video, max_seconds)

reader.FrameDecoder.__init__ = deadly
"""
_CRASHES = "os.kill(os.getpid(), signal.SIGSEGV)"


def spoil(home: Path, does: str, number: int) -> dict[str, str]:
    """An environment in which the decoder does this to one of the videos."""
    (home / "sitecustomize.py").write_text(_DEADLY.format(size=len(sample_of(number)[0][1]), does=does))
    return {"PYTHONPATH": os.pathsep.join([str(home), str(ROOT)])}


def test_a_video_that_crashes_its_decoder_is_one_damaged_sample(videos: Path, tmp_path: Path) -> None:
    words = ("stream", videos, "batch=4", "frames=2", "size=32", "workers=1", "max_bad=1", "steps=3")
    said = stillreel(*words, **spoil(tmp_path, _CRASHES, 6))
    assert said.returncode == 1, said.stderr
    assert "000000006.mp4: corrupt: the process that decodes it was ended by SIGSEGV, each time" in said.stderr
    assert "1 damaged samples were passed over" in said.stderr


@pytest.mark.slow  # the limit has ten seconds of patience
def test_a_video_that_hangs_its_decoder_is_one_damaged_sample(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in spoil(tmp_path, "while True: pass", 6).items():
        monkeypatch.setenv(name, value)
    decoder = VideoDecoder(VideoOptions(max_seconds=0.5))
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(VideoError, match=r"too_slow: decoding took over 0\.5 s"):
        decoder.read("six", sample_of(6)[0][1], frames)
    assert decoder.read("five", sample_of(5)[0][1], frames).frames == 2


def test_what_others_end_is_no_video_s_doing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in spoil(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", 6).items():
        monkeypatch.setenv(name, value)
    decoder = VideoDecoder(VideoOptions())
    with pytest.raises(StillreelError, match="was ended by SIGKILL, 5 times in a row") as caught:
        decoder.read("six", sample_of(6)[0][1], np.zeros((2, 32, 32, 3), np.uint8))
    assert not isinstance(caught.value, DataError), "it would be forgiven"


def test_the_process_ends_with_its_decoder() -> None:
    decoder = VideoDecoder(VideoOptions())
    decoder.read("a", video(), np.zeros((2, 32, 32, 3), np.uint8))
    assert decoder._child is not None
    process = decoder._child._process
    assert process.poll() is None
    del decoder
    assert process.poll() is not None


def test_videos_cannot_be_rendered_on_the_device(videos: Path) -> None:
    with pytest.raises(RequestError, match="there are videos among the data; use render=loader"):
        read(videos, render="device")


def test_held_out_videos_are_read_as_at_test(videos: Path) -> None:
    rules = settings_of(frames=4, context_length=8, video={"sampler": "segments"})
    blend = open_blend(str(videos))
    clips = HeldOutClips(blend, rules, choose_samples(blend, 0, 0), 8, 0, False)
    (batch,) = clips.read(range(1), torch.device("cpu"))
    reader = VideoReader(VideoSettings(sampler="segments", frames=4, size=32))
    with tarfile.open(videos.parent / "tars" / "00000.tar") as tar:
        tar.extractall(videos.parent / "files", filter="data")
    for number in range(5):
        clip = reader.read(videos.parent / "files" / f"{number:09d}.mp4")
        assert np.array_equal(batch.frames[number].numpy(), clip.frames)
    assert batch.mask is not None and batch.mask.all() and list(batch.captions) == [f"video {n}" for n in range(8)]


def test_settings_of_before_have_the_digests_of_before() -> None:
    """Groups that came with videos are no part of a digest at their defaults."""
    assert DataSettings().digest() == "01da51d7a64e2737bf077b392aaa2662a5168ac895ef37b971f5fb7abb823278"
    assert DataSettings(video=VideoOptions(sampler="segments")).digest() != DataSettings().digest()
    assert VideoSettings().digest() != VideoSettings(sampler="segments").digest()
