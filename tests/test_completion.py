"""Shell completion, as the shells themselves do it: a real bash and a real zsh on a terminal, and a TAB."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillreel.completion import completion_script

_ASK = "\x05\x15"  # to the end of the line, and away with it
_SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
_SETUP = {
    "bash": "bind 'set bell-style none'; bind 'set completion-query-items 0'; bind 'set page-completions off'; "
    "bind 'set show-all-if-ambiguous on'; bind 'set enable-bracketed-paste off'; source ./script; PS1='>'; echo re''ady",
    "zsh": "unsetopt zle_bracketed_paste PROMPT_SP; autoload -Uz compinit; compinit -D -u; LISTMAX=0; "
    "zstyle ':completion:*' list-prompt ''; source ./script; PS1='>'; echo re''ady",
}


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, shell: str, folder: Path) -> None:
        self._master, slave = pty.openpty()
        # With a terminal this wide, nothing that is looked for is broken over lines.
        environment = {**os.environ, "TERM": "dumb", "COLUMNS": "400", "LINES": "400", "INPUTRC": "/dev/null"}
        self._process = subprocess.Popen(
            _SHELLS[shell], stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, start_new_session=True
        )
        os.close(slave)
        os.write(self._master, (_SETUP[shell] + "\n").encode())
        self.read_until("ready")

    def complete(self, line: str, expected: str) -> str:
        """What the terminal shows of a line and a TAB, up to what is expected; AssertionError where that does not come."""
        os.write(self._master, f"{_ASK}{line}\t".encode())
        return self.read_until(expected)

    def read_until(self, expected: str, seconds: float = 30) -> str:
        text = ""
        while not re.search(expected, text):
            ready, _, _ = select.select([self._master], [], [], seconds)
            assert ready, f"no {expected!r} in {text!r}"
            text += os.read(self._master, 1 << 16).decode(errors="replace").translate({8: None, 7: None})
        return text

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[str], Terminal]]:
    opened: list[Terminal] = []

    def start(shell: str) -> Terminal:
        if shutil.which(shell) is None:
            pytest.skip(f"no {shell} here")
        (tmp_path / "script").write_text(completion_script(shell))
        (tmp_path / "clips").mkdir()
        (tmp_path / "table.tsv").touch()
        opened.append(Terminal(shell, tmp_path))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.mark.parametrize("shell", _SHELLS)
def test_a_tab_completes_commands_settings_values_presets_and_files(
    shell: str, terminal: Callable[[str], Terminal]
) -> None:
    bash_or_zsh = terminal(shell)
    for line, expected in [
        ("stillreel pretr", "pretrain"),
        ("stillreel imp", "import-checkpoint"),
        ("stillreel pretrain cc3m optimizer.gra", r"optimizer\.grad_clip_norm="),
        ("stillreel pretrain cc3m --optimizer.warmup_r", r"--optimizer\.warmup_ratio="),
        ("stillreel pretrain cc3m precision=b", "precision=bf16"),
        ("stillreel pretrain cc3m --precision f", "--precision fp32"),
        ("stillreel pretrain cc3m --parallel=f", "--parallel=fsdp"),
        ("stillreel pretrain cc12m-rerank-b1", "cc12m-rerank-b16"),
        ("stillreel finetune msrv", "msrvtt"),
        ("stillreel finetune msrvtt preset=stan-did", "preset=stan-didemo"),
        ("stillreel pretrain cc3m model=mug", "model=mug-b32"),
        ("stillreel animate tab", r"table\.tsv"),
        ("stillreel pretrain cc3m data=cli", "data=clips/"),
        ("stillreel pretrain cc3m --fresh rend", "--fresh render="),
        ("stillreel pretrain --h", "--help"),
        ("stillreel pretrain --help al", "--help all"),
        ("stillreel stats OUT js", "json="),
        ("stillreel --completion z", "--completion zsh"),
    ]:
        bash_or_zsh.complete(line, expected)


@pytest.mark.parametrize("shell", _SHELLS)
def test_two_tabs_list_the_choices_of_a_setting(shell: str, terminal: Callable[[str], Terminal]) -> None:
    shown = terminal(shell).complete("stillreel pretrain cc3m compile=\t", r"auto\s+off\s+on")
    assert "fsdp" not in shown


@pytest.mark.parametrize("shell", _SHELLS)
def test_a_script_is_of_its_shell(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    checked = subprocess.run([shell, "-n"], input=completion_script(shell), capture_output=True, text=True, check=True)
    assert checked.stderr == ""
