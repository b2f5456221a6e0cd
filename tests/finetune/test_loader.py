"""Pairs as training reads them: all captions, by position, masked where they are of one video, and never silent on damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stillreel.configs import DataError, RequestError
from stillreel.configs.finetune import FinetuneSettings
from stillreel.finetune.data.asked import open_asked
from stillreel.finetune.data.clips import Clip, Draws, FileSource
from stillreel.finetune.data.loader import Pair, order_of, pair_loader, start_state
from stillreel.finetune.data.prepare import run as prepare_run
from stillreel.finetune.data.store import StoredSource, open_store
from stillreel.finetune.evaluation.benchmark import BenchmarkClips
from stillreel.pretrain.data import ClipBatch, Share
from stillreel.pretrain.objectives.identity import gather_identity
from stillreel.pretrain.video import VideoError, View
from stillreel.pretrain.video.container import OpenVideo
from tests.pretrain.video.making import write_video

HUGE = b"\0\0\0\1moov\x80" + bytes(7)  # an MP4 whose one box is 2**63 bytes long
SETTINGS = FinetuneSettings.resolve(
    {"out": "run", "batch": 4, "context_length": 12, "workers": 0, "epochs": 3,
     "video": {"sampler": "segments"}, "frames": 3, "size": 64}
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four videos, of 40 frames each, which tell their numbers."""
    home = tmp_path_factory.mktemp("files")
    return [write_video(home / f"{number}.mp4", 40, fps=20) for number in range(4)]


@pytest.fixture(scope="module")
def pairs(files: list[Path]) -> list[Pair]:
    """Three captions of each video."""
    return [
        Pair(f"{file.stem}#{number}", file.stem, Clip(file.stem, file), f"caption {number} of {file.stem}")
        for file in files
        for number in range(3)
    ]


def batches(
    pairs: list[Pair], share: Share, steps: int, after: int = 0, settings: FinetuneSettings = SETTINGS
) -> list[ClipBatch]:
    state = start_state(pairs, settings.seed)
    state = state._replace(samples=after * share.batch, steps=after)
    return list(pair_loader(pairs, settings, share, state, steps))


def test_an_epoch_has_every_caption_once_whoever_reads_it(pairs: list[Pair]) -> None:
    whole = batches(pairs, Share(4), 6)
    for epoch in (whole[:3], whole[3:]):
        assert sorted(key for batch in epoch for key in batch.keys) == sorted(pair.key for pair in pairs)
    assert [batch.keys for batch in whole[:3]] != [batch.keys for batch in whole[3:]]
    ranks = [batches(pairs, Share(4, rank, 2), 4, after=2) for rank in (0, 1)]
    for step, (first, second) in enumerate(zip(*ranks, strict=True), 2):
        dealt = [key for two in zip(first.keys, second.keys, strict=True) for key in two]
        assert dealt == whole[step].keys
        assert first.frames is not None and whole[step].frames is not None
        assert torch.equal(first.frames, whole[step].frames[::2])  # type: ignore[index]


def test_drawn_crops_are_the_same_for_any_ranks_and_workers(pairs: list[Pair]) -> None:
    drawn = SETTINGS.model_copy(update={"crop": "random"})
    (whole,) = batches(pairs, Share(4), 1, settings=drawn)
    (by_worker,) = batches(pairs, Share(4), 1, settings=drawn.model_copy(update={"workers": 1}))
    (second,) = batches(pairs, Share(4, 1, 2), 1, settings=drawn)
    (middle,) = batches(pairs, Share(4), 1)
    assert whole.frames is not None and by_worker.frames is not None
    assert second.frames is not None and middle.frames is not None
    assert torch.equal(by_worker.frames, whole.frames) and torch.equal(second.frames, whole.frames[1::2])
    assert (whole.frames != middle.frames).flatten(1).any(dim=1).all()


def test_captions_of_one_video_are_no_negatives(pairs: list[Pair]) -> None:
    batch = next(one for one in batches(pairs, Share(4), 3) if len(set(one.sources)) < 4)
    truth = gather_identity(batch.identity).truth()
    for row, source in enumerate(batch.sources):
        same = [other == source for other in batch.sources]
        assert (~truth.negatives()[row]).tolist() == same


def test_a_damaged_video_is_named_and_another_stands_in(pairs: list[Pair], tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(HUGE)
    some = [pair._replace(clip=Clip(pair.source, bad)) if pair.source == "1" else pair for pair in pairs]
    found = batches(some, Share(4), 3)
    flags = [flag for batch in found for flag in batch.whole]
    assert flags.count(False) == 3 and "1" not in {source for batch in found for source in batch.sources}
    assert all("no_video" in one for batch in found for one in batch.damage)
    with pytest.raises(DataError, match="tried for one slot are damaged"):
        batches([pair._replace(clip=Clip(pair.source, bad)) for pair in pairs], Share(4), 1)


def test_a_state_of_other_pairs_or_another_seed_is_refused(pairs: list[Pair]) -> None:
    with pytest.raises(RequestError, match="other training pairs or another seed"):
        pair_loader(pairs, SETTINGS, Share(4), start_state(pairs[1:], 0), 1)
    with pytest.raises(RequestError, match="other training pairs or another seed"):
        pair_loader(pairs, SETTINGS, Share(4), start_state(pairs, 1), 1)


def test_crops_of_a_clip_are_decoded_once_and_are_what_each_would_be_alone(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    open_video = OpenVideo.__init__

    def noted(video: OpenVideo, path: Path, max_pixels: int) -> None:
        opened.append(path)
        open_video(video, path, max_pixels)

    monkeypatch.setattr(OpenVideo, "__init__", noted)
    views = [View(instant, place) for instant in (0.25, 0.75) for place in (0.0, 0.5, 1.0)]
    clips = [Clip(file.stem, file, view=view) for file in files[:2] for view in views]
    batch = BenchmarkClips(clips, SETTINGS.video_settings(), len(clips), 0, None)[0]
    assert opened == [file for file in files[:2] for _ in (0.25, 0.75)]
    for row, clip in enumerate(clips):
        alone = FileSource(SETTINGS.video_settings()).read(clip, None)
        assert np.array_equal(batch.frames[row].numpy(), alone.frames)
    assert batch.whole == [True] * 12 and (batch.frames[0] != batch.frames[2]).any()


@pytest.fixture(scope="module")
def stored(files: list[Path]) -> tuple[FinetuneSettings, list[Clip]]:
    """A store of the videos, a portrait one, and one that is none."""
    home = files[0].parent / "benchmark"
    home.mkdir()
    (home / "captions.tsv").write_text(
        "video\tcaption\tsplit\n" + "".join(f"{name}\t{name} is seen\t{use}\n" for name, use in (
            ("0.mp4", "train"), ("1.mp4", "train"), ("tall.mp4", "test"), ("bad.mp4", "train")))
    )  # fmt: skip
    for file in files[:2]:
        (home / file.name).symlink_to(file)
    write_video(home / "tall.mp4", 40, size=(96, 160))
    (home / "bad.mp4").write_bytes(HUGE)
    values = {**SETTINGS.model_dump(), "data": str(home), "prepare": True, "out": str(home / "store")}
    values["video"]["order"] = "shuffled"
    settings = FinetuneSettings.resolve(values)
    opened = open_asked("folder", settings, ("train", "test"), None)
    assert prepare_run(opened, settings) == 0
    clips = [Clip(name, opened.located.paths[name]) for name in ("0.mp4", "1.mp4", "tall.mp4", "bad.mp4")]
    return settings, clips


def test_a_store_gives_the_frames_that_the_videos_give(stored: tuple[FinetuneSettings, list[Clip]]) -> None:
    """In every epoch and at test, from any place along the longer side or a part that is drawn, in order and shuffled: to
    JPEG's rounding."""
    settings, clips = stored
    store = open_store(settings.out)
    kept = settings.video_settings().model_copy(update={"order": "kept"})
    for video, crops in ((settings.video_settings(), False), (kept, False), (kept, True)):
        draws = Draws(settings.seed, crops)
        source, right = StoredSource(video, store, draws), FileSource(video, draws)
        for clip in clips[:3]:
            for epoch, place in ((None, 0.5), (None, 0.0), (0, 0.5), (2, 1.0)):
                one = clip._replace(view=View(None, place))
                found, expected = source.read(one, epoch), right.read(one, epoch)
                assert found.numbers.tolist() == expected.numbers.tolist()
                assert found.times == pytest.approx(expected.times)
                assert np.array_equal(found.mask, expected.mask)
                assert np.abs(found.frames.astype(int) - expected.frames).mean() < 3


def test_crops_are_drawn_anew_each_epoch_one_for_a_clip_and_never_at_test(
    stored: tuple[FinetuneSettings, list[Clip]],
) -> None:
    settings, clips = stored
    still = settings.video_settings().model_copy(
        update={"sampler": "fps", "slice": "head", "frames": 2, "order": "kept"}
    )
    plain, drawn = FileSource(still), FileSource(still, Draws(5, crops=True))
    for clip in clips[:3]:
        assert np.array_equal(drawn.read(clip, None).frames, plain.read(clip, None).frames)
        epochs = [drawn.read(clip, epoch).frames for epoch in (0, 1, 0)]
        assert np.array_equal(epochs[0], epochs[2])
        assert np.abs(epochs[0].astype(int) - epochs[1]).mean() > 3
        crop = Draws(5, crops=True).view(clip, 1).crop
        assert crop is not None and crop != Draws(5, crops=True).view(clip, 0).crop
        assert Draws(5).view(clip, 1) == clip.view


def test_what_a_store_lacks_is_named_as_the_video_s_trouble(stored: tuple[FinetuneSettings, list[Clip]]) -> None:
    settings, clips = stored
    store = open_store(settings.out)
    source = StoredSource(settings.video_settings(), store)
    with pytest.raises(VideoError, match=r"video bad\.mp4: no_video"):
        source.read(clips[3], None)
    with pytest.raises(VideoError, match="missing"):
        source.read(Clip("other", None), None)
    tar = Path(settings.out) / "shards" / "folder-000000.tar"
    data = bytearray(tar.read_bytes())
    data[2000] ^= 1
    tar.write_bytes(data)
    damaged = StoredSource(settings.video_settings(), store)
    with pytest.raises(VideoError, match=r"corrupt: .*not the bytes that were written"):
        damaged.read(clips[0], None)


def test_pairs_that_are_together_are_read_so_and_all_of_them_once() -> None:
    alone = order_of(10, SETTINGS, 0)
    runs = order_of(10, SETTINGS.model_copy(update={"together": 4}), 0).tolist()
    assert sorted(alone.tolist()) == sorted(runs) == list(range(10))
    assert {tuple(run) for run in (runs[runs.index(0) :][:4], runs[runs.index(4) :][:4])} == {
        (0, 1, 2, 3),
        (4, 5, 6, 7),
    }
    assert runs != order_of(10, SETTINGS.model_copy(update={"together": 4}), 1).tolist() or runs != list(range(10))


def test_a_state_goes_on_with_the_pairs_together_as_they_were(pairs: list[Pair]) -> None:
    assert start_state(pairs, 0) == start_state(pairs, 0, 1)
    with pytest.raises(RequestError, match="they were together otherwise"):
        pair_loader(pairs, SETTINGS, Share(4), start_state(pairs, 0, 4), 1)
