"""Clips that move, with what the model answers: captions for each, and beside them clips for its caption."""

from __future__ import annotations

from stillreel.animate.preview.guarded import escape, isolated
from stillreel.finetune.report.answers import Answer, Answers, Choice
from stillreel.finetune.report.told import Run, Told, section

_FPS = 3


def render_examples(told: Told) -> str:
    parts = []
    for number, run in enumerate(told.runs):
        title = "" if told.single else f"<h3>{isolated(run.name)}</h3>"
        parts.append(title + _of_run(run, number))
    some = any(isinstance(run.answers, Answers) for run in told.runs)
    pause = '<button type="button" class="pause">Pause the clips</button>' if some else ""
    return section("examples", "What it answers", pause + "".join(parts))


def _of_run(run: Run, number: int) -> str:
    answers = run.answers
    if isinstance(answers, str):
        return f'<p class="none">No clips are shown: {isolated(answers)}</p>'
    about = (
        f"{answers.about}, evenly spread and not chosen. The model ({answers.model}) ranks {len(answers.captions):,} captions "
        f"for each, and {answers.gallery:,} clips for its caption; the right one is marked."
    )
    # A clip's pictures are on the page once, however often it is an answer.
    pictures = ";".join(f"--r{number}c{clip}:url({strip.url})" for clip, strip in answers.strips.items())
    cards = "".join(_card(answers, answer, number) for answer in answers.shown)
    return f'<p class="soft">{escape(about)}</p><div class="answers" data-style="{pictures}">{cards}</div>'


def _card(answers: Answers, answer: Answer, run: int) -> str:
    captions = "".join(_item(choice, isolated(answers.captions[choice.number])) for choice in answer.captions)
    clips = "".join(_item(choice, _clip(answers, choice.number, run)) for choice in answer.clips)
    return (
        f"<article>{_clip(answers, answer.clip, run)}"
        f'<div><p class="way">Video to text</p><ol>{captions}</ol></div>'
        f'<div><p class="way">Text to video: {isolated(answer.caption)}</p><ol class="found">{clips}</ol></div></article>'
    )


def _item(choice: Choice, body: str) -> str:
    return f'<li value="{choice.rank}"{" class=right" * choice.is_right}>{body}{" <b>right</b>" * choice.is_right}</li>'


def _clip(answers: Answers, clip: int, run: int) -> str:
    frames = answers.strips[clip].frames
    style = f"--n:{frames};--s:{frames / _FPS:.2f}s;--strip:var(--r{run}c{clip})"
    return f'<div class="clip" role="img" aria-label="clip {clip + 1}" data-style="{style}"></div>'
