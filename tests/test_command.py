"""The `stillreel` command: one style everywhere, answers at once, and no traceback for a user's mistake."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from stillreel.cli import main, settings_model
from stillreel.commands import COMMANDS
from stillreel.configs.settings import settings_of
from stillreel.help import COMMON
from tests.making import held_by_another, stillreel


def test_help_lists_every_command_in_half_a_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    said = subprocess.run([sys.executable, "-m", "stillreel", "--help"], capture_output=True, text=True, check=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 0.5
    for name in COMMANDS:
        assert f"\n  {name} " in said.stdout


@pytest.mark.parametrize("words", [("--help",), ("pretrain", "--help"), ("finetune", "--help", "all"), ("-V",)])
def test_help_loads_no_library_that_takes_long(words: tuple[str, ...]) -> None:
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "stillreel", *words], capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.stderr.splitlines()}
    assert "stillreel" in loaded
    assert not loaded & {"numpy", "torch", "cv2", "PIL", "av", "pyarrow", "ray", "numba", "open_clip"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_its_settings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"stillreel {name}")
    assert main([name, "--help", "all"]) == 0
    whole = capsys.readouterr().out
    settings = list(settings_of(settings_model(COMMANDS[name].settings)))
    for one in settings:
        assert f"\n  {one.path}=" in whole, one.path
        assert one.about, one.path
    if name in COMMON:
        assert 10 <= len(COMMON[name].split()) <= 15 < len(settings)
        assert f" of {len(settings)} settings, with their defaults; --help all shows every one" in page
        assert [page.count(f"\n  {path}=") for path in COMMON[name].split()] == [1] * len(COMMON[name].split())
    else:
        assert page == whole and len(settings) <= 15
    assert max(map(len, f"{page}\n{whole}".splitlines())) <= 100


def test_defaults_are_those_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["animate", "--help", "all"]) == 0
    said = capsys.readouterr().out
    for setting in (
        "store=recipe", "grammar=film", "frames=12", "size=224", "seed=0", "looks=none", "quality=90", "fps=3", "max_side=512",
        "max_pixels=178956970", "min_side=32", "max_rejects=0.1", "attempts=3", "shard_size=1000", "ray=local",
    ):  # fmt: skip
        assert f"  {setting} " in said, setting


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("animat", "a", "b"), "no command 'animat'; did you mean 'animate'? There are demo, "),
        (("train", "a"), "no command 'train'; did you mean 'pretrain' or 'finetune'?"),
        (("xyz",), "no command 'xyz'; there are demo, "),
        (("--completion", "fish"), "expected bash or zsh, given fish"),
        (("animate", "a"), "expected SOURCE OUT; given 1: a"),
        (("animate", "a", "b", "c"), "expected SOURCE OUT; given 3: a b c"),
        (("animate", "a", "b", "gramar=zoom"), "unknown setting 'gramar'; did you mean 'grammar'?"),
        (
            ("animate", "a", "b", "source.caption_column=x"),
            "unknown setting 'source.caption_column': here it is source.caption (column of the caption)",
        ),
        (("animate", "a", "b", "frames=0"), "frames=0: input should be greater than or equal to 1"),
        (("animate", "a", "b", "frames=many"), "frames=many: input should be a valid integer"),
        (("animate", "a", "b", "store=jpeg"), "store=jpeg: input should be 'recipe', 'frames' or 'video'"),
        (("animate", "a", "b", "name=CC3M!"), "name=CC3M!: expected up to 48 of [a-z0-9_]"),
        (("animate", "a", "b", "grammar=flim"), "no preset named 'flim'; did you mean 'film'?"),
        (("animate", "a", "b", "looks=gradde"), "did you mean 'graded'?"),
        (("animate", "a", "b", "store=video", "size=33"), "store=video needs an even size"),
        (("animate", "a", "b", "seed=1", "seed=2"), "seed is given twice"),
        (("animate", "a", "b", "-s", "1"), "settings are written key=value, --key=value or --key value"),
        (("animate", "a", "b", "--seed=1", "--seed", "2"), "seed is given twice"),
        (("animate", "/none/at/all", "b"), "SOURCE /none/at/all: no such file or folder"),
        (("animate", "a", "b", "preset=none.yaml"), "none.yaml: no such preset file"),
        (("verify",), "expected OUT; given 0"),
    ],
)
def test_wrong_requests_exit_2_and_say_what_to_do(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    said = stillreel(*words)
    assert said.returncode == 2, said.stderr
    assert message in said.stderr
    assert "Traceback" not in said.stderr


def test_settings_come_from_a_file_and_words_override_it(stills: Path, tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("store: frames\nframes: 3\nsize: 64\nray: off\nsource:\n  caption: caption\n")
    said = stillreel("animate", stills, tmp_path / "out", f"preset={preset}", "frames=2")
    assert said.returncode == 0, said.stderr
    first = said.stderr.splitlines()[0]
    assert re.fullmatch(
        r"stillreel animate: settings \w{12}, 5 of \d+ changed: store=frames frames=2 size=64 .*", first
    )
    assert first.endswith(" ...") and len(first) <= 100
    preset.write_text("stor: frames\n")
    wrong = stillreel("animate", stills, tmp_path / "out2", f"preset={preset}")
    assert (wrong.returncode, "did you mean 'store'?" in wrong.stderr) == (2, True)


def test_own_grammar_from_a_file(stills: Path, tmp_path: Path) -> None:
    grammar = tmp_path / "mine.yaml"
    grammar.write_text("moves: {orbit: 1}\norbit: [9, 10]\n")
    words = ("animate", stills, tmp_path / "out", "ray=off", f"grammar={grammar}")
    assert stillreel(*words).returncode == 0
    assert "orbit" in stillreel("stats", tmp_path / "out").stdout
    # The plan has the grammar's contents: a resume under another content of the same file is refused.
    grammar.write_text("moves: {pan: 1}\n")
    said = stillreel(*words)
    assert said.returncode == 2
    assert "have changed since" in said.stderr
    grammar.write_text("moves: {panorama: 1}\n")
    wrong = stillreel("animate", stills, tmp_path / "out2", "ray=off", f"grammar={grammar}")
    assert wrong.returncode == 2
    assert "moves.panorama" in wrong.stderr


def test_settings_are_printed_and_kept_with_their_hash(built: dict[str, Path]) -> None:
    import json

    manifest = json.loads((built["frames"] / "manifest.json").read_text())
    assert manifest["plans"][0]["settings"]["store"] == "frames"
    assert len(manifest["plans"][0]["settings_sha256"]) == 64
    assert manifest["plans"][0]["presets"]["grammar"]["kind"] == "shots"


def test_two_drivers_cannot_share_an_out(stills: Path, tmp_path: Path) -> None:
    with held_by_another(tmp_path / "out"):
        said = stillreel("animate", stills, tmp_path / "out", "ray=off")
    assert said.returncode == 2
    assert f"OUT {tmp_path / 'out'}: another stillreel is writing it" in said.stderr


def test_stats_as_text_and_json(built: dict[str, Path]) -> None:
    import json

    text = stillreel("stats", built["recipe"]).stdout
    assert "planned 25, written 25, rejected 0, shards 3 of 3" in text
    said = stillreel("stats", built["recipe"], "json=true").stdout
    stats = json.loads(said[said.index("{") :])
    assert stats["written"] == 25
    assert sum(stats["captions_per_sample"].values()) == 25
    assert stats["seen_area"]["0"] >= 0.5


def test_version() -> None:
    assert stillreel("--version").stdout.strip().count(".") == 2
    assert stillreel("-V").stdout == stillreel("--version").stdout


def test_a_run_begins_with_a_line_about_its_settings(built: dict[str, Path], tmp_path: Path) -> None:
    assert re.fullmatch(
        r"stillreel stats: settings [0-9a-f]{12}, 1 of 1 changed: json=true",
        stillreel("stats", built["recipe"], "--json").stderr.strip(),
    )
    (tmp_path / "mine.yaml").write_text("workers: 3\n")
    said = stillreel("verify", built["recipe"], "--workers", "1", f"preset={tmp_path / 'mine.yaml'}").stderr
    assert said.splitlines()[0].endswith(" changed: workers=1")


def test_resume_says_what_it_found(stills: Path, built: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    out = Path(shutil.copytree(built["recipe"], tmp_path / "out"))
    words = ("animate", stills, out, "ray=off", "shard_size=10", "frames=5", "size=64")
    assert "3 shards: 3 valid, 0 damaged, 0 stale, 0 missing" in stillreel(*words).stderr
    (out / "shards" / "stills-000000.json").unlink()
    tar = out / "shards" / "stills-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-10])
    flipped = out / "shards" / "stills-000002.tar"
    data = bytearray(flipped.read_bytes())
    data[3000] ^= 1
    flipped.write_bytes(data)
    said = stillreel(*words, "check=full").stderr
    assert "3 shards: 0 valid, 2 damaged, 0 stale, 1 missing" in said
    assert (
        "stills-000002 is damaged: shards/stills-000002.tar does not hash to what its receipt says; it is made again"
        in said
    )
    assert stillreel("verify", out).returncode == 0
