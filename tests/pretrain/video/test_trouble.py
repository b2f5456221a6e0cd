"""Files that are no clip, or not quite: named, within bounds, and nothing else is opened."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stillreel.configs.video import VideoSettings
from stillreel.finetune.benchmarks.files import Inventory
from stillreel.pretrain.video import TROUBLES, VideoError, VideoReader
from stillreel.pretrain.video.boxes import claimed_samples
from stillreel.pretrain.video.errors import reading
from stillreel.pretrain.video.hdr import to_sdr
from stillreel.shards.format.containers import VIDEO_ENDINGS
from tests.making import ROOT, SHARED, needs_shared
from tests.pretrain.video.making import write_video

READER = VideoReader(VideoSettings(sampler="segments", frames=4, size=64))


def trouble_of(file: Path, reader: VideoReader = READER) -> VideoError:
    with pytest.raises(VideoError) as caught:
        reader.read(file)
    assert caught.value.reason in TROUBLES
    assert str(file) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello" * 100, "not_a_video"),
        (bytes(100_000), "not_a_video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "not_a_video"),
        (b"ffconcat version 1.0\nfile 'other.mp4'\n", "not_a_video"),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\n", "not_a_video"),
        (b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>', "not_a_video"),
    ],
    ids=["nothing", "text", "zeros", "playlist", "list of files", "session", "manifest"],
)
def test_what_is_no_video_is_named(data: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "v.mp4"
    file.write_bytes(data)
    assert trouble_of(file).reason == reason


@pytest.mark.parametrize("name", ["list.m3u8", "list.ffconcat", "picture%03d.png"])
def test_lists_open_nothing_else_under_any_name(name: str, tmp_path: Path) -> None:
    """The other file is a good video: had it been opened, there would be a clip."""
    good = write_video(tmp_path / "good.mp4", 5)
    contents = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{good}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{good}'\n",
        "picture%03d.png": "x",
    }
    (tmp_path / name).write_text(contents[name])
    assert trouble_of(tmp_path / name).reason == "not_a_video"


def test_a_missing_file_a_folder_and_a_pipe_are_named_at_once(tmp_path: Path) -> None:
    assert trouble_of(tmp_path / "none.mp4").reason == "missing"
    assert trouble_of(tmp_path).reason == "unreadable"
    os.mkfifo(tmp_path / "pipe.mp4")
    assert trouble_of(tmp_path / "pipe.mp4").reason == "unreadable"


def test_names_that_look_like_addresses_are_files(tmp_path: Path) -> None:
    folder = tmp_path / "http:"
    folder.mkdir()
    write_video(tmp_path / "good.mp4", 5).rename(folder / "a %d:b.mp4")
    assert READER.read(folder / "a %d:b.mp4").mask.all()


@pytest.mark.parametrize("count", [50_000_000, 2_000_000_000])
def test_an_index_of_samples_that_are_not_there_is_refused_unread(count: int, tmp_path: Path) -> None:
    """FFmpeg would write two gigabytes of index for the first of these."""
    data = bytearray(write_video(tmp_path / "v.mp4", 30).read_bytes())
    struct.pack_into(">II", data, data.index(b"stsz") + 8, 1, count)
    file = tmp_path / "bomb.mp4"
    file.write_bytes(data)
    start = time.process_time()
    assert trouble_of(file).reason == "corrupt"
    assert time.process_time() - start < 1


def test_honest_files_claim_their_own_samples(tmp_path: Path) -> None:
    assert claimed_samples(write_video(tmp_path / "v.mp4", 30)) == 30
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    assert claimed_samples(write_video(tmp_path / "f.mp4", 30, container_options=fragmented)) == 30
    assert claimed_samples(write_video(tmp_path / "v.mkv", 30)) == 0


def box(length: int, kind: bytes, inside: bytes = b"") -> bytes:
    """A box whose length is what it says, in 64 bits."""
    return struct.pack(">I4sQ", 1, kind, length) + inside


@pytest.mark.parametrize(
    "data",
    [
        box(1 << 63, b"moov") * 3,
        box((1 << 64) - 1, b"ftyp"),
        box((1 << 63) - 1, b"moov", box(1 << 62, b"trak")),
        box(15, b"moov") * 9,
        struct.pack(">I4s", 0, b"moov") * 2000,
        struct.pack(">I4s", 1, b"moov"),
        struct.pack(">I4s", 1 << 31, b"moov") + b"\0\0\0",
        b"".join(struct.pack(">I4s", 8 * deep, b"trak") for deep in range(20_000, 0, -1)),
        box(1 << 63, b"stsz", b"\xff" * 12),
    ],
    ids=["2**63", "2**64-1", "2**63-1 in itself", "15", "0", "cut in its length", "cut", "nested", "a count"],
)
def test_boxes_of_any_length_are_the_file_s_own_trouble(data: bytes, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mp4", 5).read_bytes()
    for name, bytes_of in (("alone.mp4", data), ("behind.mp4", whole + data)):
        (tmp_path / name).write_bytes(bytes_of)
    assert trouble_of(tmp_path / "alone.mp4").reason in ("not_a_video", "corrupt", "no_video")
    try:
        assert READER.read(tmp_path / "behind.mp4").mask.all()
    except VideoError as trouble:
        assert trouble.reason == "corrupt"


def test_a_raw_stream_under_the_name_of_a_container_is_no_video(tmp_path: Path) -> None:
    raw = write_video(tmp_path / "v.h264", 10)
    assert raw.read_bytes()[:4] == b"\0\0\0\1"
    assert trouble_of(raw.rename(tmp_path / "camera.mp4")).reason == "not_a_video"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OverflowError("int too big to convert"), "corrupt"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "corrupt"),
        (ZeroDivisionError("Fraction(1, 0)"), "corrupt"),
        (BufferError(), "corrupt"),
        (OSError(5, "Input/output error"), "unreadable"),
        (MemoryError(), "too_large"),
        (VideoError("v.mp4", "too_slow", "by its own word"), "too_slow"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_whatever_a_library_raises_is_the_file_s_trouble(error: Exception, reason: str) -> None:
    with pytest.raises(VideoError, match=r"^v\.mp4: ") as caught, reading("v.mp4"):
        raise error
    assert caught.value.reason == reason


def test_a_stop_is_no_trouble_of_a_file() -> None:
    with pytest.raises(KeyboardInterrupt), reading("v.mp4"):
        raise KeyboardInterrupt


# A codec that the container of each ending may hold, and what a file of it is first written as.
CODECS = {
    **dict.fromkeys(("mp4", "m4v", "mov", "mkv", "ts", "flv", "avi"), "libx264"),
    **dict.fromkeys(("mpg", "mpeg", "vob", "mxf"), "mpeg2video"),
    "webm": "libvpx-vp9",
    "ivf": "libvpx",
    "ogv": "libvpx",
    "wmv": "wmv2",
    "asf": "wmv2",
    "gif": "gif",
    "3gp": "mpeg4",
    "3g2": "mpeg4",
}
WRITTEN_AS = {"f4v": "mp4", "qt": "mov", "3gpp": "3gp", "divx": "avi", "m2p": "mpg", "ogm": "ogv"}
WRITTEN_AS |= dict.fromkeys(("mts", "m2ts", "m2t"), "ts")


@pytest.mark.parametrize("ending", VIDEO_ENDINGS)
def test_what_a_walk_finds_is_decoded(ending: str, tmp_path: Path) -> None:
    written = WRITTEN_AS.get(ending, ending)
    made = write_video(
        tmp_path / f"v.{written}",
        30,
        fps=25,
        codec=CODECS[written],
        pixel_format="rgb8" if ending == "gif" else "yuv420p",
        options={"b": "2000000"},
        size=(128, 96),
    )
    made.rename(tmp_path / f"A.{ending.upper()}")
    assert Inventory(str(tmp_path)).videos == [f"A.{ending.upper()}"]
    clip = READER.read(tmp_path / f"A.{ending.upper()}")
    assert clip.mask.all() and len(set(clip.numbers.tolist())) == 4


def test_frames_too_large_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    file = write_video(tmp_path / "v.mp4", 3, size=(320, 240))
    small = VideoReader(VideoSettings(max_pixels=320 * 239))
    assert trouble_of(file, small).reason == "too_large"


def test_a_clip_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    file = write_video(tmp_path / "v.mp4", 60)
    assert trouble_of(file, VideoReader(VideoSettings(max_seconds=1e-6))).reason == "too_slow"


def test_a_cut_file_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.avi", 60, codec="mpeg4", options={"qscale": "2"})
    cut = tmp_path / "cut.mp4"
    front = write_video(tmp_path / "v.mp4", 60, container_options={"movflags": "faststart"}).read_bytes()
    cut.write_bytes(front[: int(len(front) * 0.6)])
    clip = READER.read(cut)
    assert clip.mask.all()
    assert clip.flaws[0].reason == "truncated"
    assert READER.read(whole).flaws == ()


def test_damaged_frames_are_replaced_by_the_ones_before_and_the_clip_says_so(tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "v.mp4", 60, options={"g": "1", "crf": "12"}).read_bytes())
    damaged = slice(int(0.4 * len(data)), int(0.5 * len(data)))  # of the pictures, which lie before the index
    data[damaged] = bytes(damaged.stop - damaged.start)
    file = tmp_path / "damaged.mp4"
    file.write_bytes(data)
    clip = VideoReader(VideoSettings(sampler="segments", frames=30, size=64)).read(file)
    assert clip.mask.all()
    assert "corrupt" in [flaw.reason for flaw in clip.flaws]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_a_title_in_another_encoding_stops_nothing(ending: str, tmp_path: Path) -> None:
    file = write_video(tmp_path / f"v.{ending}", 4, title="un petit cafe")
    data = file.read_bytes()
    assert data.count(b"un petit cafe") == 1
    file.write_bytes(data.replace(b"un petit cafe", b"un petit caf\xe9"))
    clip = VideoReader(VideoSettings(sampler="segments", frames=4, size=64)).read(file)
    assert clip.mask.all() and not clip.flaws


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert trouble_of(tmp_path / "a.mp4").reason == "no_video"


def test_high_dynamic_range_becomes_a_plain_picture() -> None:
    """Diffuse white is bright, black is black, grey stays grey, and more light is never darker."""
    ramp = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    for transfer, white in (("pq", 148), ("hlg", 191)):  # signals of 203 cd/m2, of 255
        shown = to_sdr(ramp, transfer).astype(int)  # type: ignore[arg-type]
        assert shown[0].max() == 0 and shown[-1].min() > 245
        assert np.all(np.diff(shown[:, 0]) >= 0)
        assert np.ptp(shown, axis=1).max() <= 1
        assert 220 <= shown[white].mean() <= 245


_CLIP = """
import json, sys, time
from pathlib import Path
from stillreel.configs.video import VideoSettings
from stillreel.pretrain.video import VideoReader, VideoError
reader = VideoReader(VideoSettings(sampler="segments", frames=12))
for file in sys.argv[1:]:
    start = time.process_time()  # not the clock's: others may be at work on this machine
    try:
        clip = reader.read(file)
        what = "ok" if clip.mask.all() else "short"
    except VideoError as trouble:
        what = trouble.reason
    # Not getrusage's, in which the process that started this one is counted, too.
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024
    print(json.dumps([file, what, time.process_time() - start, peak]), flush=True)
"""


@needs_shared
def test_each_nasty_video_is_read_or_named_in_ten_seconds_and_a_gibibyte() -> None:
    """All in one process, one after another: the peak is that of all of them."""
    files = sorted(map(str, (SHARED / "data/nasty/videos").iterdir()))
    run = subprocess.run(
        [sys.executable, "-c", _CLIP, *files], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row[0] for row in rows] == files, run.stderr
    assert all(what == "ok" or what in TROUBLES for _, what, _, _ in rows)
    assert sum(what == "ok" for _, what, _, _ in rows) >= 60
    assert max(seconds for *_, seconds, _ in rows) < 10
    assert rows[-1][3] < 1024
