"""The preview page: what is on it, and that a browser shows it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stillreel.animate.commands import preview
from stillreel.configs.build import PreviewSettings
from tests.browser import browser, without_policy
from tests.making import animate, picture_folder, stillreel

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


HOSTILE = "\u202egnp.exe \u2066<img src=x onerror='document.title=1'></p><script>document.title = 1</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a data set with rejects, several shots, and captions that look like HTML."""
    home = tmp_path_factory.mktemp("preview")
    source = picture_folder(home / "stills", 60)
    (source / "00007.jpg").write_bytes(b"junk")
    table = (source / "captions.tsv").read_text().splitlines()
    table[1] = "00000.jpg\t<script>alert('a')</script> & \"quotes\""
    table[2] = f"00001.jpg\t{HOSTILE}"
    (source / "captions.tsv").write_text("\n".join(table))
    assert animate(source, home / "out", max_rejects=1, frames=6, size=96, shard_size=25) == 0
    assert preview.run(str(home / "out"), PreviewSettings(samples=200)) == 0
    return home / "out" / "preview.html"


class Counting(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href") and value and not value.startswith("data:"):
                self.outside.append(value)


def test_page_is_whole_and_loads_nothing(page: Path) -> None:
    text = page.read_text()
    found = Counting()
    found.feed(text)
    assert found.outside == []
    assert "http" not in re.sub(r"data:[^\"')]*", "", text).replace("http-equiv", "")
    assert found.tags.count("article") == 59
    assert found.tags.count("script") == 1, "captions are text"
    assert "&lt;script&gt;alert(&#x27;a&#x27;)&lt;/script&gt; &amp; &quot;quotes&quot;" in text
    for piece in (
        "60</b><span>planned",
        "59</b><span>written",
        "1</b><span>rejected",
        "not_an_image",
        "zoom in",
        "then cut",
        "sees ",
    ):
        assert piece in text, piece


def test_number_of_samples_and_their_choice(page: Path, tmp_path: Path) -> None:
    out = page.parent
    keys = []
    for seed in (0, 0, 1):
        target = tmp_path / f"{len(keys)}.html"
        preview.run(str(out), PreviewSettings(samples=10, seed=seed, page=str(target)))
        keys.append(re.findall(r"<code>(stills_\d+)</code>", target.read_text()))
    assert len(keys[0]) == 10
    assert keys[0] == keys[1] == sorted(keys[0])
    assert keys[2] != keys[0]


@pytest.mark.parametrize("store", ["frames", "video"])
def test_stores_without_the_still_show_what_their_frames_saw(
    built: dict[str, Path], tmp_path: Path, store: str
) -> None:
    preview.run(str(built[store]), PreviewSettings(samples=5, page=str(tmp_path / "p.html")))
    assert (tmp_path / "p.html").read_text().count("put together from its frames") == 5


def test_unfinished_build_can_be_looked_at(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "stills", 12)
    assert animate(source, tmp_path / "out", shard_size=4) == 0
    for path in (tmp_path / "out" / "shards").glob("stills-000001.*"):
        path.unlink()
    assert preview.run(str(tmp_path / "out"), PreviewSettings()) == 0
    assert "2 of 3</b><span>shards" in (tmp_path / "out" / "preview.html").read_text()


def test_nothing_to_preview_is_said(tmp_path: Path) -> None:
    said = stillreel("preview", tmp_path)
    assert said.returncode == 1
    assert "holds no plan" in said.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_browser_shows_cards_filters_and_playing_clips(page: Path, tmp_path: Path) -> None:
    """In a real browser: filter by move, by caption, and see that the clip is drawn and moves."""
    probe = """
    <script>
    addEventListener("load", async () => {
      const shown = () => document.querySelectorAll("article:not([hidden])").length;
      const more = document.querySelector(".more");
      const report = {first: shown(), offered: more.textContent};
      more.click();
      report.all = shown();
      report.whole = more.hidden;
      const button = [...document.querySelectorAll("nav button")].find((one) => one.textContent.startsWith("zoom in"));
      button.click();
      if (!more.hidden) more.click();
      report.zoom = shown();
      report.promised = +button.textContent.match(/\\d+$/)[0];
      const search = document.querySelector("nav input[type=search]");
      search.value = "no such words"; search.dispatchEvent(new Event("input"));
      report.none = shown();
      report.said = !document.querySelector(".nothing").hidden;
      search.value = ""; search.dispatchEvent(new Event("input"));
      document.querySelector("nav button").click();
      const still = document.querySelector(".still img");
      report.still = still.complete && still.naturalWidth > 0;
      report.polygons = document.querySelector(".still svg").querySelectorAll("polygon").length;
      const clip = document.querySelector(".clip");
      const at = () => getComputedStyle(clip).backgroundPositionX;
      const before = at();
      await new Promise((done) => setTimeout(done, 900));
      report.moves = before !== at();
      document.querySelector("nav input[type=checkbox]").click();
      report.paused = getComputedStyle(clip).animationPlayState;
      document.body.innerHTML = "REPORT" + JSON.stringify(report) + "END";
    });
    </script>"""
    probed = tmp_path / "probed.html"
    probed.write_text(without_policy(page.read_text()).replace("</body>", probe + "</body>"))
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command = [CHROMIUM, *flags, "--virtual-time-budget=4000", "--dump-dom", probed.as_uri()]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    import json

    report = json.loads(said.split("REPORT")[1].split("END")[0])
    assert report.pop("zoom") == report.pop("promised") > 0
    assert report.pop("polygons") >= 6
    assert report.pop("offered") == "47 more of 59"
    assert report == {
        "first": 12,
        "all": 59,
        "whole": True,
        "none": 0,
        "said": True,
        "still": True,
        "moves": True,
        "paused": "paused",
    }


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_policy_lets_the_page_work_and_a_caption_run_nothing(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    assert "unsafe" not in text and not re.search("[\u202a-\u202e\u2066-\u2069]", text)
    assert "<bdi>\\u202egnp.exe \\u2066&lt;img" in text
    with browser(tmp_path / "profile") as one:
        one.open(page.as_uri())
        assert one.complaints == [] and one.run("document.title") != "1"
        assert one.run("document.querySelector('.still img').naturalWidth") > 0
        assert one.run("getComputedStyle(document.querySelector('.clip')).backgroundImage").startswith('url("data:')
        assert one.run("document.querySelector('.chart i').style.width").endswith("%")
        one.run("document.querySelector('nav button:nth-child(2)').click()")
        assert 0 < one.run("document.querySelectorAll('article:not([hidden])').length") < 59
        # Even if a caption were not escaped.
        (tmp_path / "unescaped.html").write_text(text.replace("<main>", f"<main><p>{HOSTILE}</p>", 1))
        one.open((tmp_path / "unescaped.html").as_uri())
        assert len(one.complaints) >= 2 and one.run("document.title") != "1"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 1400])
def test_a_page_fits_any_window_and_is_no_endless_scroll(page: Path, tmp_path: Path, width: int) -> None:
    """However many clips it holds: twelve are shown, and more when they are asked for. A strip is swiped, not shrunk."""
    with browser(tmp_path / "profile") as one:
        one.size(width, 800)
        one.open(page.as_uri())
        assert one.run("document.documentElement.scrollWidth") <= width
        assert (
            one.run("Math.max(...[...document.querySelectorAll('article')].map((card) => card.scrollWidth))") <= width
        )
        assert one.run("document.documentElement.scrollHeight") < 12_000
        frame = one.run("document.querySelector('.strip').offsetWidth / 6")
        assert frame >= 90
        assert one.run("document.querySelector('.reel').scrollWidth > document.querySelector('.reel').clientWidth") is (
            width == 390
        )
        one.run("document.querySelector('.reel').scrollLeft = 200")
        assert (one.run("document.querySelector('.reel').scrollLeft") > 0) is (width == 390)
        one.run("document.querySelector('.more').click()")
        assert one.run("document.querySelectorAll('article:not([hidden])').length") == 59
        if folder := os.environ.get("STILLREEL_SHOTS"):  # to be looked at
            one.run("document.querySelector('article').scrollIntoView()")
            one.shoot(Path(folder, f"preview-{width}.png"))
        assert one.complaints == []
