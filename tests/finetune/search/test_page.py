"""The page in a real browser: ask, play, re-rank, similar ones, nothing found, an error, a narrow window, keys."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import AXE, CHROMIUM, NO_AXE, Browser, browser
from tests.finetune.search.conftest import VIDEOS
from tests.finetune.search.serving import Server, serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

ROWS = "[...document.querySelectorAll('article')].map((one) => +one.dataset.row)"
SCORES = "[...document.querySelectorAll('.scores')].map((one) => one.textContent)"
STATUS = "document.querySelector('.status').textContent"
IDLE = "document.querySelector('main.waiting') === null"


@pytest.fixture(scope="module")
def server(made: Path) -> Iterator[Server]:
    with serving(made) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def page(server: Server, chromium: Browser) -> Iterator[Browser]:
    chromium.size(1200, 800)
    chromium.open("about:blank")
    chromium.complaints.clear()
    chromium.open(server.url)
    chromium.until(f"{STATUS} !== ''")
    yield chromium
    if folder := os.environ.get("STILLREEL_SHOTS"):  # to be looked at
        name = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split(" ")[0]
        chromium.shoot(Path(folder, f"{name}.png"))
    assert chromium.complaints == []


def ask(page: Browser, text: str) -> None:
    page.run("document.querySelector('input[type=search]').select()")
    page.type(text)
    page.press("Enter")
    page.until(f"{STATUS}.includes('for “{text}”') && {IDLE}")


def test_a_query_shows_playing_results_with_scores_and_moments(page: Browser, server: Server) -> None:
    assert page.run("document.activeElement.name") == "q", "one may type at once"
    ask(page, "a red ball")
    told = server.search({"text": "a red ball", "rerank": True}).json["results"]
    assert page.run(ROWS) == [hit["row"] for hit in told]
    assert all("match" in one and "similar" in one and "best at" in one for one in page.run(SCORES))
    assert page.run("document.querySelectorAll('article:first-child .moments i').length") == len(told[0]["moments"])
    page.until("[...document.querySelectorAll('video')].slice(0, 3).every((one) => one.readyState >= 2)")
    assert page.run("[...document.querySelectorAll('video')].every((one) => one.paused && one.controls)")
    page.press("ArrowDown")
    page.until("!document.querySelector('video').paused")
    before = page.run("document.querySelector('video').currentTime")
    page.until(f"document.querySelector('video').currentTime !== {before}")
    # The best moment is the one with the highest bar, and a click goes there.
    likeness = [one["similarity"] for one in told[0]["moments"]]
    best = likeness.index(max(likeness))
    bars = "document.querySelectorAll('article:first-child .moments i')"
    assert page.run(f"[...{bars}].findIndex((one) => one.classList.contains('best'))") == best
    page.run(f"document.querySelector('video').pause(), {bars}[{best}].click()")
    assert page.run("document.querySelector('video').currentTime") == pytest.approx(
        told[0]["moments"][best]["seconds"], abs=0.05
    )


def test_re_ranking_is_switched_off_and_on(page: Browser, server: Server) -> None:
    ask(page, "two dogs")
    page.run("document.querySelector('input[name=rerank]').click()")
    page.until(f"!{STATUS}.includes('re-ranked') && {IDLE}")
    coarse = server.search({"text": "two dogs"}).json["results"]
    assert page.run(ROWS) == [hit["row"] for hit in coarse]
    assert not any("match" in one for one in page.run(SCORES))
    page.press("Escape")  # out of the field, or else r is a letter
    page.run("document.activeElement.blur()")
    page.press("r")
    page.until(f"{STATUS}.includes('re-ranked') && {IDLE}")
    assert all("match" in one for one in page.run(SCORES))


def test_similar_ones_are_shown_and_back_leads_back(page: Browser, server: Server) -> None:
    ask(page, "a red ball")
    found = page.run(ROWS)
    page.run("document.querySelector('.similar').click()")
    page.until(f"{STATUS}.includes('like video-') && {IDLE}")
    assert page.run(ROWS) == [hit["row"] for hit in server.ask(f"/api/similar/{found[0]}").json["results"]]
    page.run("history.back()")
    page.until(f"{STATUS}.includes('a red ball') && {IDLE}")
    assert page.run(ROWS) == found


def test_keys_walk_the_results_and_their_moments(page: Browser) -> None:
    ask(page, "a red ball")
    page.until("document.querySelectorAll('video')[1].readyState >= 2")
    page.press("ArrowDown")
    page.press("ArrowDown")
    second = page.run(ROWS)[1]
    assert page.run("+document.activeElement.dataset.row") == second
    page.press("Space")
    page.until("document.activeElement.querySelector('video').paused")
    at = page.run("document.activeElement.moment")
    page.press("ArrowRight")
    assert page.run("document.activeElement.moment") != at
    page.press("ArrowUp")
    page.press("ArrowUp")
    assert page.run("document.activeElement.name") == "q"
    page.press("ArrowDown")
    page.press("Enter")
    page.until(f"location.hash.startsWith('#like') && {STATUS}.includes('like video-')")
    page.press("/")
    assert page.run("document.activeElement.name") == "q"


def test_a_video_finds_its_like(page: Browser, videos: Path) -> None:
    page.give_file("input[type=file]", videos / "video-04.mp4")
    page.until(f"{STATUS}.includes('like video-04.mp4') && {IDLE}")
    assert page.run("document.querySelector('h2').textContent") == "video-04.mp4"


def test_nothing_to_show_is_said(page: Browser) -> None:
    assert "What should be seen?" in page.run("document.querySelector('main').textContent")
    assert page.run(STATUS).startswith(f"{VIDEOS} videos of videos")
    # No index finds nothing, for all videos are ordered; a server may.
    page.run("window.fetch = async () => new Response(JSON.stringify({results: [], ms: 1}))")
    page.run("document.querySelector('input[type=search]').value = 'unicorns'; search()")
    page.until("document.querySelector('main').textContent.includes('Nothing found')")


def test_an_error_of_the_server_is_said_and_what_was_found_stays(page: Browser) -> None:
    ask(page, "a red ball")
    found = page.run(ROWS)
    page.run("document.querySelector('input[type=search]').value = 'a\\u0007'; search()")
    page.until("document.querySelector('.status.error') !== null")
    assert "holds what is no text" in page.run(STATUS) and page.run(ROWS) == found
    page.run("window.fetch = async () => { throw new TypeError('Failed to fetch') }; search()")
    page.until(f"{STATUS} === 'The server does not answer. Is stillreel serve still running?'")
    page.run("window.fetch = async () => new Response('<h1>Bad gateway</h1>', {status: 502}); search()")
    page.until(f"{STATUS}.includes('502')")
    assert page.run(ROWS) == found and page.run(IDLE)


@pytest.mark.parametrize("width", [360, 700, 1900])
def test_every_window_shows_everything_without_scrolling_sideways(page: Browser, width: int) -> None:
    page.size(width, 740)
    ask(page, "a red ball")
    assert page.run("document.documentElement.scrollWidth") <= width
    boxes = page.run(
        "[...document.querySelectorAll('form > *, article, .similar')].filter((one) => one.offsetParent)"
        ".map((one) => one.getBoundingClientRect()).map((box) => [box.left, box.right])"
    )
    assert all(left >= 0 and right <= width for left, right in boxes)
    columns = page.run("getComputedStyle(document.querySelector('main')).gridTemplateColumns.split(' ').length")
    assert columns == {360: 1, 700: 2, 1900: 4}[width]


def test_a_file_that_browsers_do_not_play_is_shown_as_its_frames(page: Browser) -> None:
    ask(page, "a red ball")
    page.run("document.querySelector('video').dispatchEvent(new Event('error'))")
    page.until("document.querySelector('video').src.includes('/frames/')")
    page.until("document.querySelector('video').readyState >= 2")


PLAYING = "[...document.querySelectorAll('video')].flatMap((one, at) => (one.paused ? [] : [at])).join()"


def test_one_video_plays_at_a_time_by_focus_or_hover(page: Browser) -> None:
    ask(page, "a red ball")
    page.until("[...document.querySelectorAll('video')].slice(0, 3).every((one) => one.readyState >= 2)")
    page.run("document.querySelectorAll('article')[0].focus()")
    page.until(f"{PLAYING} === '0'")
    page.run("document.querySelectorAll('article')[1].focus()")
    page.until(f"{PLAYING} === '1'")
    page.run("document.querySelectorAll('article')[2].dispatchEvent(new PointerEvent('pointerenter'))")
    page.until(f"{PLAYING} === '2'")
    page.run("document.querySelectorAll('article')[2].dispatchEvent(new PointerEvent('pointerleave'))")
    page.until(f"{PLAYING} === ''")


def test_moments_lie_where_they_are_in_the_video(page: Browser, server: Server) -> None:
    ask(page, "a red ball")
    hit = server.search({"text": "a red ball", "rerank": True}).json["results"][0]
    strip = "document.querySelector('.moments').getBoundingClientRect()"
    places = page.run(
        "[...document.querySelectorAll('article:first-child .moments i')].map((one) => one.getBoundingClientRect())"
        f".map((box) => [(box.left - {strip}.left) / {strip}.width, (box.right - {strip}.left) / {strip}.width])"
    )
    assert places[0][0] == pytest.approx(0, abs=0.02)
    assert places[-1][1] == pytest.approx(1, abs=0.02)
    for moment, (left, right) in zip(hit["moments"], places, strict=True):
        assert left - 0.02 <= moment["seconds"] / hit["duration"] <= right + 0.02


def test_what_was_asked_is_shown_and_can_be_taken_back(page: Browser, videos: Path) -> None:
    chip = "document.querySelector('.asked b').textContent"
    ask(page, "a red ball")
    assert page.run("document.querySelector('.asked').hidden")
    page.give_file("input[type=file]", videos / "video-04.mp4")
    page.until(f"{chip} === 'video video-04.mp4' && {IDLE}")
    assert page.run("document.querySelector('input[type=search]').value") == ""
    page.run("document.querySelector('.similar').click()")
    page.until(f"{chip}.startsWith('similar to video-') && {IDLE}")
    page.run("document.querySelector('.asked button').click()")
    assert page.run("document.querySelector('.asked').hidden")
    assert page.run("document.activeElement.name") == "q"


def test_more_shows_more_and_goes_on_from_there(made: Path, chromium: Browser) -> None:
    with serving(made, k=3) as server:
        chromium.size(1200, 800)
        chromium.open(server.url)
        chromium.until(f"{STATUS} !== ''")
        for how in ("text", "similar"):
            if how == "text":
                ask(chromium, "a red ball")
            else:
                chromium.run("document.querySelector('.similar').click()")
                chromium.until(f"location.hash.startsWith('#like') && {STATUS}.includes('like video-') && {IDLE}")
            assert len(found := chromium.run(ROWS)) == 3
            chromium.run("document.querySelector('.more').click()")
            chromium.until("document.querySelectorAll('article').length === 6")
            assert chromium.run(ROWS)[:3] == found
            assert chromium.run("document.activeElement.querySelector('.rank').textContent") == "4"
            chromium.run("document.querySelector('.more').click()")
            chromium.until(f"document.querySelectorAll('article').length === {VIDEOS if how == 'text' else VIDEOS - 1}")
            assert len(set(chromium.run(ROWS))) == len(chromium.run(ROWS))
            chromium.until("document.querySelector('.more').hidden")


def test_nothing_asked_offers_no_more_and_a_long_query_leaves_room_for_what_it_finds(page: Browser) -> None:
    page.run("location.hash = ''")
    page.until("document.querySelector('.nothing') !== null")
    assert page.run("document.querySelector('.more').hidden && document.querySelector('.save').hidden")
    page.size(390, 800)
    ask(page, "a red ball" + " beside a ball" * 25)
    assert page.run("document.querySelector('header').offsetHeight") < 230


def test_controls_cover_the_picture_of_the_chosen_video_only(page: Browser, tmp_path: Path) -> None:
    ask(page, "a red ball")
    page.until("[...document.querySelectorAll('video')].slice(0, 2).every((one) => one.readyState >= 2)")
    shown = []
    for controls in ("true", "false"):
        page.run(f"document.querySelectorAll('video')[1].controls = {controls}")
        page.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 500)))")
        page.shoot(tmp_path / f"{controls}.png")
        box = page.run(
            "(({x, y, right, bottom}) => [x, y, right, bottom])"
            "(document.querySelectorAll('video')[1].getBoundingClientRect())"
        )
        shown.append(np.asarray(Image.open(tmp_path / f"{controls}.png").convert("RGB").crop(box)))
    assert np.array_equal(*shown)


def test_results_are_saved_as_csv(page: Browser, server: Server) -> None:
    ask(page, "a red ball")
    told = server.search({"text": "a red ball", "rerank": True}).json["results"]
    rows = list(csv.reader(io.StringIO(page.run("csv(last.hits)"))))
    assert rows[0] == ["place", "path", "similarity", "match", "best_at_seconds", "seconds"]
    assert [row[1] for row in rows[1:]] == [hit["path"] for hit in told]
    assert [float(row[2]) for row in rows[1:]] == pytest.approx([hit["coarse"] for hit in told])
    assert page.run("csv([{path: 'a \"b\", c', coarse: 1, fine: null, duration: 2, moments: []}])").splitlines()[1] == (
        '"1","a ""b"", c","1","","","2"'
    )
    assert not page.run("document.querySelector('.save').hidden")


def test_a_path_is_copied_and_a_file_opened_at_its_moment(page: Browser, server: Server, videos: Path) -> None:
    ask(page, "a red ball")
    hit = server.search({"text": "a red ball", "rerank": True}).json["results"][0]
    best = max(hit["moments"], key=lambda one: one["similarity"])["seconds"]
    link = "document.querySelector('.open')"
    assert page.run(f"{link}.getAttribute('href')") == f"/video/{hit['row']}#t={best:g}"
    assert page.run(f"{link}.target + {link}.rel") == "_blanknoopener"
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    page.run("document.querySelector('.copy').click()")
    page.until("window.copied")
    assert page.run("window.copied") == str(videos / hit["path"])


def test_only_keys_that_do_something_are_named(page: Browser) -> None:
    keys = (
        "[...document.querySelectorAll('footer span')].filter((one) => one.offsetParent).map((one) => one.textContent)"
    )
    assert page.run(keys) == ["/ type", "r re-rank"]
    ask(page, "a red ball")
    assert "f full screen" in page.run(keys) and "space play" in page.run(keys)
    page.run("about.can_rerank = false; document.querySelector('.of-ranks').hidden = true")
    assert "r re-rank" not in page.run(keys)


@pytest.mark.skipif(not AXE.is_file(), reason=NO_AXE)
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("asked", ["", "a red ball"])
def test_axe_finds_no_violation(page: Browser, width: int, dark: bool, asked: str) -> None:
    page.size(width, 800)
    page.dark(dark)
    try:
        if asked:
            ask(page, asked)
        assert page.violations() == []
        assert page.run("document.querySelectorAll('h1').length") == 1
    finally:
        page.dark(False)
