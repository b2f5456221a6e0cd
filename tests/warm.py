"""Processes that start warm: forks of one that has imported torch and our commands.

A new interpreter imports for six seconds of a core before `pretrain` does anything, which was a fourth of the suite's time.
A fork of one that has is as real a process: with a PID, signals, an exit code, an environment and a folder of its own. The
fork server is the standard library's, and starts with the first of them.
"""

from __future__ import annotations

import atexit
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context, set_start_method
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Self

_ROOT = Path(__file__).resolve().parents[1]

_forks = get_context("forkserver")
_forks.set_forkserver_preload(
    [
        "torch.distributed.run",
        "tests.making",
        "stillreel.pretrain.commands.pretrain",
        "stillreel.finetune.commands.demo",
        "stillreel.finetune.commands.evaluate",
        "stillreel.finetune.commands.report",
        "stillreel.shards.commands.verify",
    ]
)


class Warm:
    """A module that runs as `python -m MODULE WORD ...` in the repository's top folder, or as MODULE "-c" the code that is the
    first word; what of Popen's the tests use."""

    def __init__(
        self,
        module: str,
        words: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        ranks: Sequence[str] = (),
    ) -> None:
        """In this process's environment, or in another. With `ranks`, torchrun's settings, torchrun runs the module."""
        self._said = tempfile.TemporaryDirectory(prefix="said-")
        told = self._said.name
        for name in ("out", "error"):
            Path(told, name).touch()
        given = dict(os.environ if environment is None else environment)
        self._process = _forks.Process(target=_begin, args=(module, list(words), told, given, list(ranks)))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):  # whatever it has started, too
            os.killpg(self.pid, signal.SIGKILL)
        self._process.join()
        self._said.cleanup()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired(self._process.name, timeout or 0.0, *self._texts())
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end. What it said to stdout and to stderr."""
        self.wait(timeout)
        return self._texts()

    def finish(self, timeout: float) -> CompletedProcess[str]:
        """Wait for its end; when it does not come, kill it."""
        with self:
            out, error = self.communicate(timeout)
            return CompletedProcess([], self.wait(), out, error)

    def said(self) -> list[str]:
        """The whole lines that it has said to stdout by now."""
        return _lines(self._texts()[0])

    def wait_for(self, sign: str, timeout: float = 240) -> None:
        """Until it has said a line that begins so, to stdout or to stderr."""
        end = time.monotonic() + timeout
        while not any(line.startswith(sign) for text in self._texts() for line in _lines(text)):
            assert self.poll() is None and time.monotonic() < end, self._texts()
            time.sleep(0.005)

    def terminate(self) -> None:
        self._process.terminate()

    def _texts(self) -> tuple[str, str]:
        out, error = (Path(self._said.name, name) for name in ("out", "error"))
        return out.read_text(), error.read_text()


def _lines(text: str) -> list[str]:
    return text.rpartition("\n")[0].splitlines()


def _begin(module: str, words: list[str], told: str, environment: dict[str, str], ranks: list[str]) -> None:
    """In the new process."""
    os.setsid()
    set_start_method(None, force=True)  # not this process's own, but the usual one
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(_ROOT)
    _write_to(told)
    try:
        if ranks:
            _run_ranks(module, words, ranks)
        else:
            _run(module, words)
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out, and an interpreter does not


def _run_ranks(module: str, words: list[str], settings: list[str]) -> None:
    """As torchrun's own `main`, but that it forks the ranks in place of starting interpreters."""
    from torch.distributed import run
    from torch.distributed.launcher.api import elastic_launch

    asked = run.parse_args([*settings, "--start_method=fork", "-m", module, *words])
    if asked.standalone:
        asked.rdzv_backend, asked.rdzv_endpoint, asked.rdzv_id = "c10d", "localhost:0", str(os.getpid())
    config, _, _ = run.config_from_args(asked)
    elastic_launch(config, _run_rank)(module, words)


def _write_to(told: str) -> None:
    for number, name in ((1, "out"), (2, "error")):
        handle = os.open(Path(told, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)


def _run(module: str, words: list[str]) -> None:
    sys.argv = [module, *words]
    if module == "-c":
        sys.argv = ["-c", *words[1:]]
        exec(compile(words[0], "<string>", "exec"), {"__name__": "__main__"})
        return
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _run_rank(module: str, words: list[str]) -> None:
    """torchrun waits for a function of its own to return, and tells nobody what it raised."""
    try:
        _run(module, words)
    except SystemExit as end:
        if end.code:
            raise
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise
