"""The three stores hold the same clips, and everyone can read them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds

from stillreel import shards
from stillreel.animate import SampleDecoder
from stillreel.animate.clips.clip import ClipMaker
from stillreel.animate.clips.encode import crf_of_quality
from stillreel.configs import DataError
from stillreel.configs.settings import preset_names
from tests.making import SHARED, animate, members_of_tars, needs_shared, picture_folder, rows_of, write_tar

GRAMMARS = preset_names("grammars")


def frames_before_encoding(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray[Any, Any]]:
    """Key -> what store=frames rendered, caught on its way to the encoder."""
    from stillreel.animate.clips import clip as module

    caught: dict[str, np.ndarray[Any, Any]] = {}
    encode, film = module.encode_frames, ClipMaker._film
    keys: list[str] = []

    def noting_key(self: ClipMaker, planned: Any, data: bytes | None) -> Any:
        keys.append(planned.key)
        return film(self, planned, data)

    def catching(frames: np.ndarray[Any, Any], quality: int) -> list[bytes]:
        caught[keys[-1]] = frames.copy()
        return encode(frames, quality)

    monkeypatch.setattr(ClipMaker, "_film", noting_key)
    monkeypatch.setattr(module, "encode_frames", catching)
    return caught


def assert_rendered_later_is_rendered_before(
    source: Path, home: Path, grammar: str, looks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"grammar": grammar, "looks": looks, "frames": 6, "size": 96}
    before = frames_before_encoding(monkeypatch)
    assert animate(source, home / "frames", store="frames", **settings) == 0
    assert animate(source, home / "recipe", store="recipe", **settings) == 0
    later = {clip.key: clip.frames for clip in shards.as_webdataset(str(home / "recipe"), SampleDecoder(6, 96))}
    assert before.keys() == later.keys()
    for key, frames in before.items():
        assert (frames == later[key]).all(), key


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_frames_rendered_later_equal_those_rendered_before_encoding(
    stills: Path, tmp_path: Path, grammar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_rendered_later_is_rendered_before(stills, tmp_path, grammar, "none", monkeypatch)


@pytest.mark.parametrize("looks", preset_names("looks"))
def test_looks_are_the_same_later(stills: Path, tmp_path: Path, looks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_rendered_later_is_rendered_before(stills, tmp_path, "film", looks, monkeypatch)


@needs_shared
def test_they_are_equal_for_real_pictures_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones, turned ones, ones with profiles: transcoded once, the same for both stores."""
    assert_rendered_later_is_rendered_before(
        SHARED / "data" / "images" / "coco_mini", tmp_path, "film", "none", monkeypatch
    )


def test_all_stores_hold_the_same_captions_recipes_and_rows(built: dict[str, Path]) -> None:
    described = [
        {name: json.loads(data) for name, data in members_of_tars(out).items() if name.endswith(".json")}
        for out in built.values()
    ]
    assert described[0] == described[1] == described[2]
    texts = [
        {name: data for name, data in members_of_tars(out).items() if name.endswith(".txt")} for out in built.values()
    ]
    assert texts[0] == texts[1] == texts[2]
    rows = [[{**row, "sha256": None} for row in rows_of(out)] for out in built.values()]
    assert rows[0] == rows[1] == rows[2]


def test_members_are_as_the_format_says(built: dict[str, Path]) -> None:
    endings = {store: {name.split(".", 1)[1] for name in members_of_tars(out)} for store, out in built.items()}
    assert endings == {
        "recipe": {"jpg", "json", "txt"},
        "frames": {"000.jpg", "001.jpg", "002.jpg", "003.jpg", "004.jpg", "json", "txt"},
        "video": {"mp4", "json", "txt"},
    }
    one = json.loads(members_of_tars(built["recipe"])["stills_000000000.json"])
    assert set(one) == {"recipe", "captions", "size", "source_key"}
    assert members_of_tars(built["recipe"])["stills_000000000.txt"].decode() == one["captions"][0]


@pytest.mark.parametrize("store", ["recipe", "frames", "video"])
def test_clips_of_all_stores_look_alike(built: dict[str, Path], store: str) -> None:
    found = list(shards.as_webdataset(str(built[store]), SampleDecoder(5, 64)))
    reference = {clip.key: clip.frames for clip in shards.as_webdataset(str(built["recipe"]), SampleDecoder(5, 64))}
    assert [clip.key for clip in found] == [f"stills_{number:09d}" for number in range(25)]
    for clip in found:
        assert clip.frames.shape == (5, 64, 64, 3)
        assert clip.frames.dtype == np.uint8
        assert np.abs(clip.frames.astype(int) - reference[clip.key]).mean() < (8 if store == "video" else 5)


def test_recipe_store_serves_any_frame_count_and_size(built: dict[str, Path]) -> None:
    for frames, size in ((1, 32), (16, 96)):
        clip = next(iter(shards.as_webdataset(str(built["recipe"]), SampleDecoder(frames, size))))
        assert clip.frames.shape == (frames, size, size, 3)
    with pytest.raises(DataError, match="holds 5 frames of 64 x 64; asked for 8 of 64 x 64"):
        next(iter(shards.as_webdataset(str(built["frames"]), SampleDecoder(8, 64))))


@pytest.mark.parametrize("store", ["recipe", "frames", "video"])
def test_plain_webdataset_reads_them(built: dict[str, Path], store: str) -> None:
    urls = sorted(map(str, built[store].glob("shards/*.tar")))
    samples = list(wds.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"stills_{number:09d}" for number in range(25)]
    decoded = next(iter(wds.WebDataset(urls, shardshuffle=False).decode("rgb8")))
    assert isinstance(decoded["json"], dict)
    assert isinstance(decoded["txt"], str)


def test_ray_data_reads_them(built: dict[str, Path]) -> None:
    import ray

    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        for store, out in built.items():
            rows = ray.data.read_webdataset(sorted(map(str, out.glob("shards/*.tar"))), decoder=None).take_all()
            assert sorted(row["__key__"] for row in rows) == [f"stills_{number:09d}" for number in range(25)], store
    finally:
        ray.shutdown()


def test_pickles_are_never_decoded(built: dict[str, Path], tmp_path: Path) -> None:
    import pickle
    import shutil

    out = Path(shutil.copytree(built["recipe"], tmp_path / "out"))
    trace = tmp_path / "trace"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trace,)

    for ending in ("pkl", "pyd", "pth", "npy"):
        write_tar(out / "shards" / "stills-000000.tar", [(f"a.{ending}", pickle.dumps(Payload())), ("a.txt", b"a dog")])
        with pytest.raises(DataError, match=f"no decoder for .{ending}"):
            list(shards.as_webdataset(str(out)))
    assert not trace.exists()


def test_shuffled_reading_has_every_sample_once(built: dict[str, Path]) -> None:
    keys = [sample["__key__"] for sample in shards.as_webdataset(str(built["recipe"]), shuffle=100)]
    assert sorted(keys) == [f"stills_{number:09d}" for number in range(25)]
    assert keys != sorted(keys)


def test_unfinished_data_set_is_refused(stills: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the build did not finish"):
        shards.as_webdataset(str(tmp_path))


def test_several_captions_stay_and_one_is_drawn(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "photos", 30)
    lines = ["file\tcaption"] + [f"{number:05d}.jpg\tcaption {which}" for number in range(30) for which in range(4)]
    (source / "captions.tsv").write_text("\n".join(lines))
    assert animate(source, tmp_path / "out") == 0
    spoken = [clip.caption for clip in shards.as_webdataset(str(tmp_path / "out"), SampleDecoder(2, 32))]
    assert set(spoken) == {f"caption {which}" for which in range(4)}
    assert all(row["captions"] == [f"caption {which}" for which in range(4)] for row in rows_of(tmp_path / "out"))


def test_quality_decides_the_size_of_frames_and_videos(stills: Path, tmp_path: Path) -> None:
    sizes = {}
    for store in ("frames", "video"):
        for quality in (50, 95):
            out = tmp_path / f"{store}-{quality}"
            assert animate(stills, out, store=store, quality=quality, frames=3, size=64) == 0
            sizes[store, quality] = sum(len(data) for data in members_of_tars(out).values())
    assert sizes["frames", 50] < 0.7 * sizes["frames", 95]
    assert sizes["video", 50] < 0.8 * sizes["video", 95]
    assert (crf_of_quality(90), crf_of_quality(100)) == (23, 18)


def test_video_plays_at_its_rate(built: dict[str, Path]) -> None:
    import io

    import av

    name, data = next((name, data) for name, data in members_of_tars(built["video"]).items() if name.endswith(".mp4"))
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.codec_context.name, stream.width, stream.frames) == (3, "h264", 64, 5), name


@pytest.mark.slow
@pytest.mark.parametrize("packages", ["webdataset==1.0.2"])
def test_other_webdataset_reads_them(built: dict[str, Path], tmp_path: Path, packages: str) -> None:
    """In an environment of its own, with our code on the path and nothing else of ours installed."""
    import subprocess

    code = (
        "import sys, webdataset as wds\n"
        "for out in sys.argv[1:]:\n"
        "    import glob\n"
        "    urls = sorted(glob.glob(out + '/shards/*.tar'))\n"
        "    keys = [s['__key__'] for s in wds.WebDataset(urls, shardshuffle=False)]\n"
        "    assert keys == [f'stills_{n:09d}' for n in range(25)], keys\n"
        "print(wds.__version__ if hasattr(wds, '__version__') else 'read')\n"
    )
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "uv", "venv", "-q", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "-q", "-p", str(python), packages, "numpy"], check=True
    )
    subprocess.run([str(python), "-c", code, *map(str, built.values())], check=True)


@pytest.mark.slow
def test_open_clip_reads_recipe_shards_as_its_own(built: dict[str, Path], tmp_path: Path) -> None:
    """`get_wds_dataset` of open_clip's own training code takes our tars for image-text shards."""
    import subprocess

    code = """
import sys, glob, types
from open_clip_train.data import get_wds_dataset
urls = sys.argv[1] + "/shards/stills-{000000..000002}.tar"
args = types.SimpleNamespace(train_data=urls, val_data=urls, train_data_upsampling_factors=None, dataset_resampled=False,
    train_num_samples=25, val_num_samples=25, seed=0, batch_size=5, workers=1, world_size=1, epochs=1)
info = get_wds_dataset(args, preprocess_img=lambda image: __import__("torch").tensor(image.size), is_train=False,
    tokenizer=lambda text: [__import__("torch").tensor([len(text)])])
seen = 0
for images, texts in info.dataloader:
    assert images.shape[1] == 2 and (images[:, 0] == 160).all(), images
    seen += len(texts)
assert seen == 25, seen
print("read", seen)
"""
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "uv", "venv", "-q", str(home)], check=True)
    python = home / "bin" / "python"
    packages = ["open_clip_torch>=3.3,<3.4", "webdataset==0.2.86", "pandas", "setuptools<81"]
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", "-q", "-p", str(python), *packages], check=True)
    said = subprocess.run([str(python), "-c", code, str(built["recipe"])], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "read 25" in said.stdout
