"""The page of a run: true of the run's folder, whole, and shown by a browser without a complaint."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path

import pytest

from stillreel.configs.pretrain import PretrainSettings
from stillreel.finetune.commands.report import write_report
from stillreel.finetune.report.answers import chance_of, find_answers
from stillreel.finetune.report.history import read_history
from stillreel.pretrain.commands import pretrain as command
from tests.browser import AXE, NO_AXE, browser, without_policy
from tests.making import animate, picture_folder, stillreel

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TITLES = [
    "Loss",
    "Learning rate, at its highest",
    "Text to video, held out",
    "Video to text, held out",
    "Clips per second",
    "Waiting for data",
]
HELD_OUT, SAME = 14, 3  # clips, and how many of them have one caption
SCRIPT = 'a <script>throw 1</script> & "quotes"'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps, evaluated every third, with captions that repeat and one that looks like HTML."""
    home = tmp_path_factory.mktemp("report")
    assert animate(picture_folder(home / "stills", 24, width=64, height=48), home / "clips") == 0
    source = picture_folder(home / "held", HELD_OUT, width=64, height=48)
    lines = (source / "captions.tsv").read_text().splitlines()
    lines[1] = f"00000.jpg\t{SCRIPT}"
    for number in range(1, SAME):
        lines[1 + number] = lines[1 + number].split("\t")[0] + "\t" + lines[1 + SAME].split("\t")[1]
    (source / "captions.tsv").write_text("\n".join(lines) + "\n")
    assert animate(source, home / "held-out", name="held") == 0
    values = {
        "data": str(home / "clips"),
        "out": str(home / "run"),
        "batch": 8,
        "steps": 6,
        "workers": 0,
        "threads": 1,
        "device": "cpu",
        "model": "tiny",
        "frames": 2,
        "size": 64,
        "context_length": 32,
        "lanes": 4,
        "fresh": True,
        "objective": {"infonce": 1, "sigmoid": 0.5},
        "optimizer": {"lr": 1e-3, "warmup_steps": 2},
        "eval": {"data": str(home / "held-out"), "every": 3, "clips": 0},
        "save_every": 3,
        "log_every": 1,
        "progress": "off",
    }
    assert command.run("", PretrainSettings.resolve(values)) == 0
    return home / "run"


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    write_report([run], run / "report.html", clips=HELD_OUT)
    return run / "report.html"


class _Outside(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value for name, value in attributes if name in ("src", "href") and value]


def test_page_is_whole_and_loads_nothing(page: Path) -> None:
    text = page.read_text()
    found = _Outside()
    found.feed(text)
    assert found.outside == []
    assert "http" not in re.sub(r"data:[^\"')]*", "", text).replace("http-equiv", "")
    assert re.findall(r"url\((?!data:)", text) == []
    assert found.tags.count("script") == 1, "captions are text"
    assert escape(SCRIPT) in text


def test_page_tells_what_the_run_wrote(run: Path, page: Path) -> None:
    text = page.read_text()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "t2v_r1" in line][-1]
    cells = re.findall(r"<td>([^<]*)</td>", text.split('class="figures"')[1].partition("</tr>")[2])
    assert cells[:6] == [f"{last[f't2v_{name}']:.1f}" for name in ("r1", "r5", "r10", "r50", "mdr", "mnr")]
    assert re.findall(r"<figure[^>]*><h2>([^<]*)</h2>", text) == TITLES
    losses = [[line["step"], line["loss"]] for line in lines if "loss" in line]
    assert escape(json.dumps({"points": losses})[1:-1]) in text
    assert re.findall(r"<h1><bdi>([^<]*)</bdi></h1>", text) == ["run"]
    for name in ("infonce", "sigmoid"):
        assert f"</svg> {name}</span>" in text
    settings = dict(re.findall(r"<tr><th>([^<]*)</th><td>([^<]*)</td>", text.split('class="settings"')[1]))
    assert (settings["batch"], settings["steps"], settings["objective.sigmoid"]) == ("8", "6", "0.5")
    assert "optimizer.betas" not in settings, "it is the default"
    assert json.loads((run / "run.json").read_text())["settings_digest"] in text
    assert "finished after step 6" in text


def test_answers_are_those_of_the_evaluation(run: Path) -> None:
    """Asked about all clips, the model ranks as many captions and clips right as metrics.jsonl says."""
    history = read_history(run)
    answers = find_answers(history, 100)
    captions = HELD_OUT - SAME + 1
    assert (answers.clips, len(answers.captions), answers.gallery) == (HELD_OUT, captions, HELD_OUT)
    assert [answer.clip for answer in answers.shown] == list(range(HELD_OUT))
    for way, first in (("captions", 5), ("clips", 3)):
        found = [getattr(answer, way) for answer in answers.shown]
        ranks = [next(one.rank for one in choices if one.is_right) for choices in found]
        for depth in (1, 5):
            share = 100 * sum(rank <= depth for rank in ranks) / HELD_OUT
            name = f"{'v2t' if way == 'captions' else 't2v'}_r{depth}"
            assert share == pytest.approx(history.evaluations[-1][name])
        for choices in found:
            assert [one.rank for one in choices[:first]] == list(range(1, first + 1))
            assert sum(one.is_right for one in choices) >= 1
    shown = {choice.number for answer in answers.shown for choice in answer.clips}
    assert shown <= set(answers.strips) and set(answers.strips) == set(range(HELD_OUT))


def test_a_clip_s_pictures_are_on_the_page_once_and_both_ways_are_beside_it(page: Path) -> None:
    text = page.read_text()
    assert text.count("data:image/webp") == HELD_OUT
    cards = text.split("<article>")[1:]
    assert len(cards) == HELD_OUT
    for card in cards:
        assert card.index("Video to text") < card.index("Text to video: ")
        assert card.partition('class="found"')[2].count('class="clip"') in (3, 4)


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [2, 1, 1], [3, 2], [1]])
def test_chance_is_what_all_orders_give_on_average(sizes: list[int]) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]

    def rank(order: tuple[int, ...], label: int) -> int:
        found = [labels[clip] for clip in order]
        return 1 + sum(other != label for other in found[: found.index(label)])

    ranks = [rank(order, label) for order in permutations(range(len(labels))) for label in labels]
    chance = chance_of(sizes)
    for depth in (1, 5):
        assert chance[f"t2v_r{depth}"] == pytest.approx(100 * sum(one <= depth for one in ranks) / len(ranks))
        assert chance[f"v2t_r{depth}"] == pytest.approx(100 * min(depth / len(sizes), 1))
    assert chance["t2v_mnr"] == pytest.approx(sum(ranks) / len(ranks))
    assert chance["v2t_mnr"] == (len(sizes) + 1) / 2


def test_what_cannot_be_asked_is_said_on_the_page(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    told = json.loads((copy / "run.json").read_text())
    told["settings"]["eval"]["data"] = "/none/at/all"
    (copy / "run.json").write_text(json.dumps(told))
    write_report([copy], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "No clips are shown: " in text and "/none/at/all" in text
    assert "chance" not in text.split("<body>")[1].split("<script>")[0]
    assert text.count("<figure") == 6


def test_a_run_that_has_just_begun_has_a_page(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(run / "run.json", tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "metrics.jsonl tells of no step yet" in text
    assert "the run has no checkpoint yet" in text
    (tmp_path / "run" / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.5, "clips": 8, "clips_per_s": 4}\n{"step": 2, "lo'
    )
    write_report([tmp_path / "run"], tmp_path / "page.html")
    assert "2.500</b><span>loss" in (tmp_path / "page.html").read_text(), "half a line is passed over"


def test_the_command_writes_beside_the_run_and_refuses_what_is_none(run: Path, tmp_path: Path) -> None:
    said = stillreel("report", run, f"page={tmp_path / 'mine.html'}", "clips=0")
    assert (said.returncode, said.stdout.startswith(f"the report: {tmp_path / 'mine.html'} (")) == (0, True), (
        said.stderr
    )
    wrong = stillreel("report", tmp_path)
    assert wrong.returncode == 2
    assert "no run of training (it has no run.json); expected OUT of `stillreel pretrain`" in wrong.stderr
    (tmp_path / "run.json").write_text("{}")
    assert stillreel("report", tmp_path).returncode == 1


PROBE = """
<script>
const said = [];
addEventListener("error", (event) => said.push(event.message));
console.error = console.warn = (...words) => said.push(words.join(" "));
addEventListener("load", () => {
  const report = {drawn: [], told: []};
  for (const figure of document.querySelectorAll("figure.lines")) {
    const box = figure.querySelector(".plot").getBoundingClientRect();
    const curve = figure.querySelector("svg[viewBox] > path:not(.level)").getBoundingClientRect();
    report.drawn.push(curve.width > box.width / 2 && curve.height > 10
      && curve.left >= box.left - 5 && curve.right <= box.right + 5
      && curve.top >= box.top - 5 && curve.bottom <= box.bottom + 5);
    const plot = figure.querySelector(".plot");
    plot.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right}));
    report.told.push(plot.querySelector("output").innerText);
    const words = plot.querySelector("output").getBoundingClientRect();
    report.inside = (report.inside ?? true) && words.left >= 0 && words.right <= innerWidth;
    plot.dispatchEvent(new PointerEvent("pointerleave"));
    report.left = (report.left ?? 0) + plot.querySelectorAll("output").length;
  }
  const beyond = [...document.body.querySelectorAll("*")].filter((one) =>
    !one.closest(".scroll") && one.getBoundingClientRect().right > innerWidth + 0.5);
  report.beyond = beyond.map((one) => one.outerHTML.slice(0, 80));
  report.scrolls = document.documentElement.scrollWidth > innerWidth;
  report.plays = getComputedStyle(document.querySelector(".clip")).animationName;
  report.width = innerWidth;
  report.said = said;
  parent.postMessage(report, "*");
});
</script>"""

FRAME = """<!doctype html><body><iframe style="width:{width}px;height:3000px;border:0"></iframe><script>
addEventListener("message", (event) => { document.body.textContent = "REPORT" + JSON.stringify(event.data) + "END"; });
document.querySelector("iframe").srcdoc = PAGE;
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 380])
def test_a_browser_draws_the_curves_tells_values_and_nothing_overflows(
    page: Path, run: Path, tmp_path: Path, width: int
) -> None:
    # Within a frame, since a window has a least width.
    probed = json.dumps(without_policy(page.read_text()).replace("<script>", PROBE + "<script>", 1)).replace(
        "</", "<\\/"
    )
    (tmp_path / "frame.html").write_text(FRAME.replace("{width}", str(width)).replace("PAGE", probed))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    assert CHROMIUM is not None
    command = [CHROMIUM, *flags, "--virtual-time-budget=4000", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    report = json.loads(said.split("REPORT")[-1].split("END")[0])
    assert report["width"] == width
    assert report["said"] == []
    assert report["drawn"] == [True] * 6
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert report["told"][0].startswith("step 6\nloss ")
    assert f"R@1 (chance 10.2) {last['t2v_r1']:.4g}%" in report["told"][2].replace("\xa0", " ")
    assert (report["inside"], report["left"], report["scrolls"], report["beyond"]) == (True, 0, False, [])
    assert report["plays"] == "play"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_policy_lets_the_page_work_and_a_caption_run_nothing(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    assert "unsafe" not in text and f"<bdi>{escape(SCRIPT)}</bdi>" in text
    with browser(tmp_path / "profile") as one:
        one.open(page.as_uri())
        assert one.complaints == []
        assert one.run("getComputedStyle(document.querySelector('.clip')).backgroundImage").startswith('url("data:')
        assert one.run("document.querySelector('.across').style.left").endswith("%")
        one.run("document.querySelector('.plot').focus()")
        assert "step 6" in one.run("document.querySelector('output').innerText")
        hostile = "<img src=x onerror='document.title=1'><script>document.title = 1</script>"
        (tmp_path / "unescaped.html").write_text(text.replace("<main>", f"<main>{hostile}", 1))
        one.open((tmp_path / "unescaped.html").as_uri())
        assert len(one.complaints) >= 2 and one.run("document.title") != "1"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_clips_move_until_they_are_paused_and_not_where_nothing_shall(page: Path, tmp_path: Path) -> None:
    state = "getComputedStyle(document.querySelector('.clip')).animationPlayState"
    place = "getComputedStyle(document.querySelector('.clip')).backgroundPositionX"
    with browser(tmp_path / "profile") as one:
        one.open(page.as_uri())
        assert one.run(state) == "running"
        one.until(f"{place} !== '0px' && {place} !== '0%'")
        one.run("document.querySelector('.pause').click()")
        assert one.run(state) == "paused"
        assert one.run("document.querySelector('.pause').textContent") == "Play the clips"
        one.run("document.querySelector('.pause').click()")
        one.still(True)
        assert one.run(state) == "paused"


@pytest.mark.skipif(CHROMIUM is None or not AXE.is_file(), reason=NO_AXE)
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_no_violation(page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    (tmp_path / "page.html").write_text(without_policy(page.read_text()))
    with browser(tmp_path / "profile") as one:
        one.size(width, 900)
        one.dark(dark)
        one.open((tmp_path / "page.html").as_uri())
        assert one.violations() == []
