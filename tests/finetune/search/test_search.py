"""`stillreel search`: by text, picture, video, a batch; two stages; lines and JSON; and what it refuses."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stillreel
from stillreel.cli import main
from stillreel.configs import RequestError
from stillreel.configs.system.storage import Folder
from stillreel.configs.video import VideoSettings
from stillreel.finetune.search.approximate import FaissSearch, build_faiss
from stillreel.finetune.search.features import stored_features
from stillreel.finetune.search.searcher import Searcher
from stillreel.finetune.search.store import Entry, IndexWriter, open_index
from stillreel.pretrain.data.tokens import CLIPS_OWN
from stillreel.pretrain.evaluation.two_stage.stages import coarse_scores, fine_scores
from stillreel.pretrain.video import VideoReader
from tests.finetune.search.conftest import VIDEOS
from tests.finetune.search.making import FRAMES, SIZE, copied, index, opened, write_model

TEXTS = ["a red ball", "two dogs run on a beach", "a man"]


def search(made: Path, *words: object) -> int:
    return main(["search", str(made), *map(str, words), "device=cpu"])


def results(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_texts_find_what_the_model_scores_highest(made: Path) -> None:
    searcher = Searcher(opened(made), device="cpu")
    model = searcher.model
    video = stored_features(searcher.index, np.arange(VIDEOS), "cpu")
    with torch.no_grad():
        text = model.encode_text(CLIPS_OWN(TEXTS, model.clip.context_length))
    coarse = coarse_scores(model, video, text) / model.clip.logit_scale.exp()
    fine = fine_scores(model, video, text, torch.arange(VIDEOS).expand(len(TEXTS), -1))
    for row, hits in enumerate(searcher.by_text(TEXTS, VIDEOS)):
        assert [hit.row for hit in hits] == coarse[row].argsort(descending=True).tolist()
        assert [hit.coarse for hit in hits] == pytest.approx(coarse[row].sort(descending=True)[0].tolist(), abs=1e-3)
        assert all(hit.fine is None for hit in hits)
    for rerank in (1, 3, VIDEOS, 1000):
        for row, hits in enumerate(searcher.by_text(TEXTS, VIDEOS, rerank)):
            by_vector = coarse[row].argsort(descending=True)
            inside = sorted(by_vector[:rerank].tolist(), key=lambda at, row=row: -fine[row, at].item())
            assert [hit.row for hit in hits] == inside + by_vector[rerank:].tolist()
            told = [hit.fine for hit in hits[: len(inside)]]
            assert told == pytest.approx([fine[row, at].item() for at in inside], abs=1e-4)
            assert all(hit.fine is None for hit in hits[len(inside) :])


def test_the_weight_mixes_both_stages(made: Path) -> None:
    index_ = opened(made)
    (by_vector,) = Searcher(index_, device="cpu").by_text(TEXTS[:1], VIDEOS)
    (coarse,) = Searcher(index_, device="cpu", weight=0.0).by_text(TEXTS[:1], VIDEOS, VIDEOS)
    assert [hit.row for hit in coarse] == [hit.row for hit in by_vector]
    searcher = Searcher(index_, device="cpu", weight=0.3)
    scale = searcher.model.clip.logit_scale.exp().item()
    (mixed,) = searcher.by_text(TEXTS[:1], VIDEOS, VIDEOS)
    told = [0.3 * (hit.fine or 0) + 0.7 * scale * hit.coarse for hit in mixed]
    assert told == sorted(told, reverse=True)


def test_re_ranking_looks_deeper_than_what_is_shown(made: Path) -> None:
    searcher = Searcher(opened(made), device="cpu")
    (few,), (all_,) = searcher.by_text(TEXTS[:1], 1, VIDEOS), searcher.by_text(TEXTS[:1], VIDEOS, VIDEOS)
    assert few[0] == all_[0]


@pytest.mark.parametrize("kind", ["mug", "tight", "tab", "rerank, patches"])
def test_every_kind_of_model_is_indexed_and_searched(kind: str, videos: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", kind)
    assert index(videos, tmp_path / "index", model) == 0
    searcher = Searcher(opened(tmp_path / "index"), device="cpu")
    assert searcher.can_rerank == (kind != "tab")
    (hits,) = searcher.by_text(TEXTS[:1], 3, 5 if searcher.can_rerank else 0)
    assert len(hits) == 3
    assert searcher.like(2, 3)[0].row != 2


def test_moments_are_the_similarities_of_frames(made: Path) -> None:
    searcher = Searcher(opened(made), device="cpu")
    (hits,) = searcher.by_text(TEXTS[:1], 2)
    with torch.no_grad():
        query = searcher.model.encode_text(CLIPS_OWN(TEXTS[:1], 77)).pooled[0]
    for hit in hits:
        frames = torch.from_numpy(searcher.index.frames[hit.row].astype(np.float32))
        expected = torch.cosine_similarity(frames, query[None])
        assert [one.similarity for one in hit.moments] == pytest.approx(expected.tolist(), abs=1e-5)
        assert [one.seconds for one in hit.moments] == pytest.approx(searcher.index.times[hit.row].tolist())


def test_lines_tell_rank_scores_and_the_best_moment(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(made, "a red ball", "k=2", "rerank=5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].split()[0] == "1"
    assert "video-0" in lines[0] and "best at" in lines[0] and lines[0].endswith("s")


def test_json_is_a_line_a_query(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "queries.txt").write_text("\n".join([TEXTS[0], "", TEXTS[1]]) + "\n")
    assert search(made, f"queries={tmp_path / 'queries.txt'}", "k=3", "json=true") == 0
    told = results(capsys)
    assert [one["query"] for one in told] == TEXTS[:2]
    assert search(made, TEXTS[1], "k=3", "json=true") == 0
    (alone,) = results(capsys)
    for one, other in zip(told[1]["results"], alone["results"], strict=True):
        assert one["path"] == other["path"] and one["coarse"] == pytest.approx(other["coarse"], abs=1e-5)
    assert set(alone["results"][0]) == {"row", "path", "duration", "coarse", "fine", "moments"}


def test_a_video_and_a_picture_find_their_own(
    made: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(made, f"video={videos / 'video-03.mp4'}", "k=2", "json=true") == 0
    (told,) = results(capsys)
    assert told["results"][0]["path"] == "video-03.mp4"
    assert told["results"][0]["coarse"] == pytest.approx(1, abs=2e-3)
    clip = VideoReader(VideoSettings(frames=FRAMES, size=SIZE)).read(videos / "video-05.mp4")
    Image.fromarray(clip.frames[0]).save(tmp_path / "frame.png")
    assert search(made, f"image={tmp_path / 'frame.png'}", "k=1", "json=true") == 0
    (told,) = results(capsys)
    assert told["results"][0]["moments"][0]["similarity"] > 0.9


def test_what_cannot_be_searched_is_said(
    made: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "none.txt").write_text("\n\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    cases: dict[tuple[object, ...], tuple[int, str]] = {
        (): (2, "given: none"),
        ("words", f"image={tmp_path / 'text.png'}"): (2, "given: TEXT, image="),
        (f"image={tmp_path / 'text.png'}",): (1, "no picture that can be read"),
        (f"video={tmp_path / 'text.png'}",): (1, "not_a_video"),
        (f"image={tmp_path / 'nothing'}",): (2, "no such file"),
        (f"queries={tmp_path / 'none.txt'}",): (2, "holds 0 queries"),
        (f"queries={tmp_path / 'bytes.txt'}",): (1, "expected UTF-8"),
        (f"video={videos / 'video-00.mp4'}", "rerank=5"): (2, "it must be 0"),
        ("words", "k=0"): (2, "k=0"),
        ("words", f"checkpoint={tmp_path}"): (2, ""),
        ("words", f"checkpoint={tmp_path / 'nothing'}"): (2, "say where it is by checkpoint=FOLDER"),
    }
    for words, (code, said) in cases.items():
        assert search(made, *words) == code, words
        assert said in capsys.readouterr().err, words


def test_another_model_than_the_index_s_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_model(tmp_path / "other", "mean")
    assert search(made, "words", f"checkpoint={other}") == 1
    assert "is not the model that this index was made by" in capsys.readouterr().err


def test_a_coarse_model_cannot_re_rank(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model", "mean")
    assert index(videos, tmp_path / "index", model) == 0
    assert search(tmp_path / "index", "words", "rerank=5") == 2
    assert "has no re-ranker; set rerank=0" in capsys.readouterr().err


def test_faiss_proposes_and_the_vectors_score(
    videos: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss")
    out = tmp_path / "index"
    assert index(videos, out, checkpoint) == 0
    assert search(out, "words", "faiss=true") == 2
    assert "run `stillreel index` again with faiss=true" in capsys.readouterr().err
    assert index(videos, out, checkpoint, faiss="true") == 0
    exact, near = (Searcher(opened(out), device="cpu", faiss=one) for one in (False, True))
    # So few videos are one cell, of which nothing is missed.
    for rerank in (0, 3):
        for ours, theirs in zip(exact.by_text(TEXTS, 5, rerank), near.by_text(TEXTS, 5, rerank), strict=True):
            assert [hit.row for hit in ours] == [hit.row for hit in theirs]
            assert [hit.coarse for hit in ours] == pytest.approx([hit.coarse for hit in theirs], abs=1e-5)
    (file,) = out.glob("faiss-*")
    file.write_bytes(b"J" * file.stat().st_size)
    assert search(out, "words", "faiss=true") == 1
    assert "is damaged" in capsys.readouterr().err


def test_faiss_finds_nearly_all_of_many() -> None:
    pytest.importorskip("faiss")
    from stillreel.finetune.search.exact import best_rows

    random = np.random.default_rng(0)
    centers = random.standard_normal((200, 32))
    vectors = (centers[random.integers(200, size=20_000)] + 0.3 * random.standard_normal((20_000, 32))).astype(
        np.float16
    )
    queries = vectors[:50].astype(np.float32)

    with tempfile.TemporaryDirectory() as home:
        folder = Folder(home)
        with IndexWriter(folder, len(vectors), 32, 1) as writer:
            writer.add(vectors, vectors[:, None], np.zeros((len(vectors), 1), np.float32))
            entries = [Entry(f"{row:05}.mp4", 1, 1, row=row) for row in range(len(vectors))]
            writer.finish(entries, {"root": "/", "model": {}, "settings": {}})
        built = build_faiss(open_index(folder))
        near, exact = FaissSearch(built).best_rows(queries, 10), best_rows(built.vectors, queries, 10)
        built.check()
    found = [len({*one} & {*other}) for one, other in zip(near[1].tolist(), exact[1].tolist(), strict=True)]
    assert sum(found) > 0.9 * 10 * 50
    assert (near[1][:, 0] == exact[1][:, 0]).mean() > 0.95
    assert (np.diff(near[0], axis=1) <= 0).all()


def test_an_index_that_is_cut_while_it_is_open_is_an_error_and_not_the_end(made: Path, tmp_path: Path) -> None:
    from stillreel.configs import DataError

    out = copied(made, tmp_path / "index")
    searcher = Searcher(opened(out), device="cpu")
    (vectors,) = out.glob("vectors-*")
    with vectors.open("r+b") as file:
        file.truncate(200)
    with pytest.raises(DataError, match="was cut or overwritten while it was open"):
        searcher.by_text(TEXTS, 3)


def test_an_index_is_searched_from_python_and_nothing_is_written(made: Path) -> None:
    """`import stillreel` alone: the index is opened once, and anew when it was made anew."""
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in made.rglob("*")}
    hits = stillreel.search(made, "a red ball", k=3)
    assert [hit.row for hit in hits] == [hit.row for hit in Searcher(opened(made)).by_text(["a red ball"], 3)[0]]
    assert [hit.row for hit in stillreel.search(str(made), "a red ball", 3, rerank=7)] == [
        hit.row for hit in Searcher(opened(made)).by_text(["a red ball"], 3, 7)[0]
    ]
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in made.rglob("*")} == before
    with pytest.raises(RequestError, match="is no index"):
        stillreel.search(made / "nope", "a dog")


def test_an_index_that_was_made_anew_is_opened_anew(made: Path, videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    few = tmp_path / "videos"
    few.mkdir()
    for path in sorted(videos.glob("*.mp4"))[:2]:
        shutil.copy(path, few)
    assert index(few, tmp_path / "index", checkpoint) == 0
    assert len(stillreel.search(tmp_path / "index", "a dog")) == 2
    shutil.copy(sorted(videos.glob("*.mp4"))[2], few)
    assert index(few, tmp_path / "index", checkpoint) == 0
    assert len(stillreel.search(tmp_path / "index", "a dog")) == 3
