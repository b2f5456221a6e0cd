"""The page: figures at the top, filters, a card a clip, and the rejects. One file, nothing loaded from elsewhere."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from importlib import resources
from itertools import accumulate
from string import Template
from typing import Any

from stillreel.animate.preview.card import Card
from stillreel.animate.preview.guarded import content_policy, escape, isolated
from stillreel.configs.system.progress import amount
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import Plan
from stillreel.shards.format.record import REASONS

_SHOT_COLOURS = ("#ff9f1c", "#2ec4b6", "#e8436b", "#8e7cff", "#7cb518", "#3a86ff")
_MOVE_NAMES = {"static": "hold still", "crop": "center crop", "jump": "jump", "diagonal": "move across"}


def render_page(
    folder: Folder,
    plans: Sequence[Plan],
    stats: dict[str, Any],
    cards: Sequence[Card],
    rejects: Sequence[tuple[str, str, str]],
) -> str:
    """The HTML of the page."""
    header = plans[0].header
    settings = header.settings
    style, script = _asset("base.css") + _asset("page.css"), _asset("base.js") + _asset("page.js")
    shown = ("store", "grammar", "frames", "size", "seed", "looks", "max_side")
    return Template(_asset("page.html")).substitute(
        title=escape(f"{header.name}: {len(cards)} of {stats['written']:,} clips"),
        policy=content_policy(style, script),
        style=style,
        script=script,
        name=escape(header.name),
        where=isolated(folder.url),
        settings=escape("  ".join(f"{key}={settings[key]}" for key in shown)),
        totals=_totals(stats),
        charts=_charts(stats),
        filters=_filters(cards),
        cards="\n".join(_card(card, int(settings["fps"])) for card in cards),
        rejects=_rejects(rejects, stats),
    )


def _totals(stats: dict[str, Any]) -> str:
    rejected = sum(stats["rejected"].values())
    unfinished = stats["shards"]["planned"] - stats["shards"]["finished"]
    tiles = [
        (f"{stats['planned']:,}", "planned"),
        (f"{stats['written']:,}", "written"),
        (f"{rejected:,}", "rejected"),
        (f"{stats['shards']['finished']:,}" + (f" of {stats['shards']['planned']:,}" if unfinished else ""), "shards"),
        (amount(sum(stats["bytes"].values())), "on disk"),
        (f"{stats['seen_area'].get('50', 0):.0%}", "of the picture seen (median)"),
    ]
    return "".join(f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in tiles)


def _charts(stats: dict[str, Any]) -> str:
    charts = [_bars("Moves", [(_move_name(move), count) for move, count in stats["moves"].items()])]
    charts.append(_bars("Area of the picture that a clip sees", list(stats["seen_histogram"].items())))
    charts.append(_bars("Rejected", list(stats["rejected"].items())))
    return "".join(charts)


def _bars(title: str, rows: list[tuple[str, int]]) -> str:
    most, total = max((count for _, count in rows), default=0), sum(count for _, count in rows)
    if not total:
        return f"<section class=chart><h2>{escape(title)}</h2><p class=none>none</p></section>"
    bars = "".join(
        f"<tr><th>{escape(name)}</th><td><i data-style='width:{100 * count / most:.1f}%'></i></td>"
        f"<td class=count>{count:,}</td><td class=count>{count / total:.1%}</td></tr>"
        for name, count in rows
    )
    return f"<section class=chart><h2>{escape(title)}</h2><table>{bars}</table></section>"


def _filters(cards: Sequence[Card]) -> str:
    counts: dict[str, int] = {}
    for card in cards:
        for move in card.moves:
            counts[move] = counts.get(move, 0) + 1
    buttons = [f"<button class=on data-move=''>all {len(cards)}</button>"]
    buttons += [
        f"<button data-move='{escape(move)}'>{escape(_move_name(move))} {count}</button>"
        for move, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    return "".join(buttons)


def _card(card: Card, fps: int) -> str:
    # The strip is one picture, used twice: a clip plays by moving it behind a window one frame wide.
    style = f"--n:{card.strip.frames};--s:{card.strip.frames / fps:.2f}s;--strip:url({card.strip.url})"
    rebuilt = " · <em>put together from its frames</em>" if card.rebuilt else ""
    facts = f"sees {card.seen:.0%} · <code>{escape(card.key)}</code> · {isolated(card.source_key)}{rebuilt}"
    width, height = card.still_size
    return (
        f'<article data-moves="{escape(" ".join(card.moves))}" data-text="{escape(" ".join(card.captions).lower())}" '
        f'data-style="{style}"><figure class="still"><img src="{card.still}" width="{width}" height="{height}" alt="">'
        f'{_overlay(card)}</figure><div class="clip"></div>'
        f'<div class="about"><p class="caption">{isolated(card.captions[card.spoken])}</p>'
        f'<p class="words">{escape(card.words)}</p><p class="facts">{facts}</p>{_all_captions(card)}</div>'
        f'<div class="reel" tabindex="0" role="group" aria-label="frames"><div class="strip"></div></div></article>'
    )


def _all_captions(card: Card) -> str:
    if len(card.captions) == 1:
        return ""
    items = "".join(
        f"<li{' class=spoken' if number == card.spoken else ''}>{isolated(caption)}</li>"
        for number, caption in enumerate(card.captions)
    )
    return f"<details><summary>all {len(card.captions)} captions</summary><ol>{items}</ol></details>"


def _overlay(card: Card) -> str:
    """The camera on the still: first view solid, later ones fainter and dashed, its path as a line to a dot."""
    width, height = card.still_size
    shapes: list[str] = []
    for outline in card.outlines:
        corners = " ".join(f"{x:g},{y:g}" for x, y in outline.corners)
        dash = "" if outline.time == 0 else ' stroke-dasharray="5 4"'
        opacity = 1 if outline.time in (0, 1) else 0.45
        shapes.append(
            f'<polygon points="{corners}" stroke="{_color_at(card, outline.time)}" opacity="{opacity}"{dash}/>'
        )
    for number, path in enumerate(card.paths):
        color = _SHOT_COLOURS[number % len(_SHOT_COLOURS)]
        points = " ".join(f"{x:g},{y:g}" for x, y in path)
        x, y = path[-1]
        shapes.append(f'<polyline points="{points}" stroke="#000" stroke-width="4" opacity="0.45"/>')
        shapes.append(f'<polyline points="{points}" stroke="{color}"/>')
        shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="{color}" stroke="#000" stroke-width="1"/>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(shapes)}</svg>'


def _color_at(card: Card, time: float) -> str:
    """Color of the shot that is on at a time; a path holds as many points as its shot lasts. Crops take turns."""
    if not card.paths:
        return _SHOT_COLOURS[int(time * 0.999 * len(_SHOT_COLOURS))]
    ends = list(accumulate(len(path) for path in card.paths))
    number = min(bisect_right(ends, time * ends[-1]), len(ends) - 1)
    return _SHOT_COLOURS[number % len(_SHOT_COLOURS)]


def _rejects(rejects: Sequence[tuple[str, str, str]], stats: dict[str, Any]) -> str:
    if not rejects:
        return ""
    total = sum(stats["rejected"].values())
    head = f"{total:,} rejected" + (f", the first {len(rejects)}" if len(rejects) < total else "")
    rows = "".join(
        f'<tr><td title="{escape(REASONS[reason])}">{reason}</td><td>{isolated(key)}</td><td>{isolated(detail)}</td></tr>'
        for reason, key, detail in rejects
    )
    return (
        f'<details class="rejects"><summary>{head}</summary>'
        f"<table><tr><th>reason</th><th>source key</th><th>detail</th></tr>{rows}</table></details>"
    )


def _move_name(move: str) -> str:
    return _MOVE_NAMES.get(move, move.replace("_", " "))


def _asset(name: str) -> str:
    return resources.files("stillreel.animate.preview").joinpath(name).read_text(encoding="utf-8")
