"""Three ways to give a setting, and what the settings page and the printed configuration say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillreel.cli import main, settings_model
from stillreel.commands import COMMANDS
from stillreel.configs import RequestError, parse_words
from stillreel.configs.answers import knows
from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.pretrain import PretrainSettings
from stillreel.configs.settings import preset_names, settings_of

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.mark.parametrize(
    "words",
    [
        ["msrvtt", "out=run", "optimizer.lr_new=1e-3", "dry_run=true", "micro_batch=8"],
        ["msrvtt", "--out=run", "--optimizer.lr_new=1e-3", "--dry_run=true", "--micro_batch=8"],
        ["--out", "run", "--optimizer.lr-new", "1e-3", "--dry-run", "msrvtt", "--micro-batch", "8"],
        ["--dry-run", "true", "msrvtt", "--micro-batch=8", "out=run", "--optimizer.lr_new", "1e-3"],
        ["msrvtt", "--optimizer.lr_new", "1e-3", "out=run", "--micro_batch", "8", "--dry_run"],
    ],
)
def test_a_setting_is_given_in_three_spellings(words: list[str]) -> None:
    given, values = parse_words(words, ("BENCHMARK",), FinetuneSettings)
    settings = FinetuneSettings.resolve(values)
    assert given == ["msrvtt"]
    assert (settings.out, settings.optimizer.lr_new, settings.dry_run, settings.micro_batch) == ("run", 1e-3, True, 8)


def test_a_value_may_be_negative_and_a_flag_may_be_denied() -> None:
    words = ["msrvtt", "out=run", "--objective.sigmoid_bias", "-5", "--dual-softmax", "no"]
    settings = FinetuneSettings.resolve(parse_words(words, ("BENCHMARK",), FinetuneSettings)[1])
    assert (settings.objective.sigmoid_bias, settings.dual_softmax) == (-5, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch"], "--batch: a value is expected, as in --batch VALUE: global batch size"),
        (["--batch", "--fresh"], "--batch: a value is expected"),
        (["-b", "8"], "-b: settings are written key=value, --key=value or --key value"),
        (["--batch=8", "batch=9"], "batch is given twice"),
        (["--ema"], "ema is a group of settings, and takes no value of its own: ema.decay"),
        (["model=stan-b32", "model.stan.depth=2"], "write model.preset=stan-b32"),
        (["model.stan.depth=2", "model=stan-b32"], "write model.preset=stan-b32"),
        (["--max-words", "8", "--lr", "1"], "'max_words': here it is context_length"),
        (["--max-words", "8", "--lr", "1"], "'lr': here it is optimizer.lr"),
    ],
)
def test_a_word_that_is_no_setting_says_what_is_expected(words: list[str], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_words(["cc3m", "data=a", "out=b", *words], ("PRESET",), PretrainSettings, presets="pretrain")
    assert message in str(caught.value)


def test_unknown_settings_are_answered_before_a_file_is_opened_or_a_positional_is_missed() -> None:
    with pytest.raises(RequestError, match="learning_rate"):
        parse_words(["preset=none.yaml", "learning_rate=1"], ("PRESET",), PretrainSettings, presets="pretrain")


def test_warmup_in_steps_and_as_a_ratio_exclude_each_other(capfd: pytest.CaptureFixture[str]) -> None:
    both = ("optimizer.warmup_steps=10", "optimizer.warmup_ratio=0.2")
    assert main(["pretrain", "cc3m", "data=clips", "out=run", *both]) == 2
    assert "optimizer: warmup_steps=10 and warmup_ratio=0.2 are both given; leave one out" in capfd.readouterr().err
    # A preset's steps make way for a ratio, and the other way round.
    assert main(["pretrain", "cc3m", "--optimizer.warmup-ratio", "0.2", "--print-config"]) == 0
    printed = capfd.readouterr().out
    assert "warmup_ratio: 0.2" in printed and "warmup_steps" not in printed


# Every command without a preset, and with each preset that it ships.
CALLS = [(name, "") for name in COMMANDS] + [
    (name, preset)
    for name, command in COMMANDS.items()
    for preset in preset_names(command.presets or command.folder)
    if command.presets or command.folder != "presets" or name == "animate"
]


@pytest.mark.parametrize(("name", "preset"), CALLS)
def test_a_printed_configuration_reads_back_as_the_same_settings(
    name: str, preset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command, model = COMMANDS[name], settings_model(COMMANDS[name].settings)
    required = [f"{one.path}={7 if one.kind is int else 'x'}" for one in settings_of(model) if one.required]
    named = [] if not preset else [preset] if command.presets else [f"preset={preset}"]
    assert main([name, *named, *required, "--print-config"]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capfd.readouterr().out)
    positionals = [str(printed)] if command.presets else ["x" for _ in command.positionals]
    back = parse_words(
        [*positionals, *([] if command.presets else [f"preset={printed}"])],
        command.positionals,
        model,
        presets=command.presets,
        folder=command.folder,
    )[1]
    beyond = set(settings_model(command.beyond).model_fields) - set(model.model_fields) if command.beyond else set()
    said = parse_words(
        [*(positionals if not command.presets else []), *named, *required],
        command.positionals if not command.presets or preset else (),
        model,
        presets=command.presets if preset else "",
        folder=command.folder,
        beyond=beyond,
    )[1]
    assert model.resolve(back) == model.resolve(said)
    assert "None" not in printed.read_text() and "null" not in printed.read_text()
    if command.presets and preset:  # ... and beside the preset that it was printed from
        beside = parse_words([preset, f"preset={printed}"], command.positionals, model, presets=command.presets)[1]
        assert model.resolve(beside) == model.resolve(said)


def test_a_printed_configuration_uses_aliases_and_says_what_is_still_to_be_given(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["stats", "--print-config", "--json"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "json: true"
    assert main(["pretrain", "cc3m", "--print-config"]) == 0
    printed = capfd.readouterr()
    assert "# data= is still to be given: clip shards" in printed.out and "\ndata:" not in printed.out
    assert printed.err == ""
    assert main(["pretrain", "cc3m", "--print-config", "learning_rate=1"]) == 2


def test_every_new_name_of_the_settings_page_exists_and_no_old_one_does() -> None:
    rows = [line.split("|")[1:4] for line in DOCS.read_text().splitlines() if line.count("|") == 4 and "`" in line]
    table = {old.strip(" `"): (new.strip(" `"), commands.strip().split(", ")) for old, new, commands in rows}
    assert len(table) > 40
    for new, commands in table.values():
        for name in commands:
            model = settings_model(COMMANDS[name].settings)
            assert knows(model, new), (new, name)
    for name, command in COMMANDS.items():
        found = {old for old in table if knows(settings_model(command.settings), old)}
        assert not found, (name, found)
