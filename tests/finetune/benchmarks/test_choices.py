"""Multi-choice in the layouts that it is handed around in: which sentences are a video's options, and which of them is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stillreel.configs import DataError, RequestError
from tests.finetune.benchmarks.making import lines, opened, read, touch, write

SAID = [[f"{video} {way}" for way in ("runs", "eats", "sings", "sits", "flies")] for video in ("a dog", "a bus")]
ANSWERS = (3, 0)


def of_vindlu() -> Any:
    return [
        {"video": f"video{7010 + n}.mp4", "caption": said, "answer": answer}
        for n, (said, answer) in enumerate(zip(SAID, ANSWERS, strict=True))
    ]


def of_clipbert() -> str:
    return lines(
        *(
            json.dumps({"qid": f"q{n}", "clip_name": f"video{7010 + n}", "options": said, "answer": answer})
            for n, (said, answer) in enumerate(zip(SAID, ANSWERS, strict=True))
        )
    )


def of_jsfusion() -> str:
    rows = [
        "\t".join((f"MC{n}", f"msr{7010 + n}", *said, str(answer)))
        for n, (said, answer) in enumerate(zip(SAID, ANSWERS, strict=True))
    ]
    return lines("key\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer", *rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("msrvtt_mc_test.json", of_vindlu()),
        ("msrvtt_mc_test.jsonl", of_clipbert()),
        ("MSR_MC_test.csv", of_jsfusion()),
    ],
)
def test_msrvtt_s_questions_are_read_in_three_layouts(name: str, text: Any, tmp_path: Path) -> None:
    write(tmp_path / name, text)
    benchmark, _ = read("msrvtt", tmp_path, variant="mc")
    videos = benchmark.splits["test"].videos
    assert [(one.id, list(one.captions), one.label) for one in videos] == [
        ("video7010", SAID[0], 3),
        ("video7011", SAID[1], 0),
    ]
    assert benchmark.protocol.task == "choice"
    assert benchmark.describe() == (
        "MSR-VTT MC, test: 2 videos, a question each of 5 options, one of them right; a tie with it is no hit; published "
        "with 2,990 videos"
    )


def test_their_questions_are_no_captions_of_other_variants(tmp_path: Path) -> None:
    """Five captions a video, of which four are wrong, would pass for the official test."""
    said = [{"video": f"video{n}.mp4", "caption": SAID[0], "answer": 0} for n in range(2990)]
    write(tmp_path / "questions.json", said)
    benchmark, finder = read("msrvtt", tmp_path, variant="mc", allow_missing=False)
    assert "by its content" in finder.chosen[0] and len(benchmark.splits["test"].videos) == 2990
    with pytest.raises(RequestError, match="the 2,990 official test ids: none found"):
        read("msrvtt", tmp_path, variant="full")
    with pytest.raises(DataError, match="that is a list of multiple choice"):
        read("msrvtt", tmp_path, variant="1ka-9k", files={"test": "questions.json"})


def test_the_retrieval_list_trains_what_mc_tests(tmp_path: Path) -> None:
    write(tmp_path / "msrvtt_mc_test.json", of_vindlu())
    write(tmp_path / "MSRVTT_train.7k.csv", lines("video_id", "video0"))
    write(tmp_path / "MSRVTT_data.json", {"sentences": [{"video_id": "video0", "caption": "a cat"}]})
    benchmark, _ = read("msrvtt", tmp_path, variant="mc", needs=("train", "test"))
    assert [(one.captions, one.label) for one in benchmark.splits["train"].videos] == [(("a cat",), None)]
    assert benchmark.selection is None


def film(clip: str, *rest: str) -> str:
    return "\t".join((clip, "00.00.51.926", "00.00.54.129", "00.00.51.000", "00.00.55.000", *rest))


CLIPS = [f"100{n}_A_Film_00.00.51.926-00.00.54.129" for n in range(3)]


def test_lsmdc_s_questions_count_answers_from_one_and_ask_a_clip_more_than_once(tmp_path: Path) -> None:
    name = "LSMDC16_multiple_choice_test_randomized.csv"
    rows = [film(CLIPS[0], *SAID[0], "4"), film(CLIPS[1], *SAID[1], "1"), film(CLIPS[0], *SAID[1], "5")]
    write(tmp_path / name, lines(*rows))
    write(tmp_path / "LSMDC16_multiple_choice_valid.csv", lines(film(CLIPS[2], *SAID[0])))
    touch(tmp_path / "1000_A_Film", [f"{clip}.avi" for clip in CLIPS])
    located = opened("lsmdc", tmp_path, variant="mc").located
    splits = located.benchmark.splits
    assert [(one.id, one.label) for one in splits["test"].videos] == [(CLIPS[0], 3), (CLIPS[1], 0), (CLIPS[0], 4)]
    assert [one.label for one in splits["validation"].videos] == [0], "there the right one is the first"
    assert not any(located.missing.values()) and located.benchmark.selection == "validation"
    with pytest.raises(DataError, match="that is LSMDC's multiple choice"):
        read("lsmdc", tmp_path, files={"test": name})


def test_lsmdc_s_clips_may_have_several_sentences(tmp_path: Path) -> None:
    write(tmp_path / "LSMDC16_annos_training.csv", lines(*(film(CLIPS[0], said) for said in ("He sits.", "He reads."))))
    write(tmp_path / "LSMDC16_challenge_1000_publictect.csv", lines(film(CLIPS[1], "It rains.")))
    benchmark, _ = read("lsmdc", tmp_path, needs=("train", "test"))
    assert [one.captions for one in benchmark.splits["train"].videos] == [("He sits.", "He reads.")]
    assert benchmark.differences == (
        "train: 2 captions in the files, 101,079 published (the release)",
        "test: 1 videos in the files, 1,000 published (LSMDC16_challenge_1000_publictect.csv)",
    )
    with pytest.raises(
        RequestError, match=r"2 captions; the train split of LSMDC has 101,079 captions \(the release\)"
    ):
        read("lsmdc", tmp_path, needs=("train",), allow_missing=False)


def test_a_right_option_that_stands_twice_is_told(tmp_path: Path) -> None:
    twice = [SAID[0], [*SAID[1][:4], SAID[1][0]]]
    said = [record | {"caption": options} for record, options in zip(of_vindlu(), twice, strict=True)]
    write(tmp_path / "msrvtt_mc_test.json", said)
    benchmark, _ = read("msrvtt", tmp_path, variant="mc")
    assert any(
        "1 questions of msrvtt_mc_test.json have their right option twice" in one for one in benchmark.differences
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 5}, r"record 2: the answer 5; expected the number of an option, 0 to 4"),
        ({"answer": None}, r"record 2: the answer None; expected the number"),
        ({"answer": True}, r"record 2: 'answer' is true or false"),
        ({"caption": ["a dog", "a bus"]}, r"record 2: 2 options; expected 5, as many for all"),
        ({"caption": "a dog"}, r"record 2: 'caption' is text, expected a list"),
    ],
)
def test_a_question_that_cannot_be_is_refused_by_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    first, second = of_vindlu()
    write(tmp_path / "msrvtt_mc_test.json", [first, second | change])
    with pytest.raises(DataError, match=message):
        read("msrvtt", tmp_path, variant="mc")


def test_rows_of_another_length_are_refused_by_name(tmp_path: Path) -> None:
    name = tmp_path / "LSMDC16_multiple_choice_test_randomized.csv"
    write(name, lines(film(CLIPS[0], *SAID[0], "4"), film(CLIPS[1], *SAID[1])))
    with pytest.raises(DataError, match=r"line 2: expected 11 fields .* five sentences, answer\), found 10"):
        read("lsmdc", tmp_path, variant="mc")
    write(name, lines(film(CLIPS[0], *SAID[0], "0")))
    with pytest.raises(DataError, match=r"line 1: the answer '0'; expected the number of an option, 1 to 5"):
        read("lsmdc", tmp_path, variant="mc")
