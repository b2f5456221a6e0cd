"""A request to stop, which the loop grants after a step, on all ranks together.

Unlike `configs.system.interrupt.stoppable`, nothing is raised where a signal happens to arrive: a step that is cut in half
on one rank would leave the others waiting for its gradients.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any, Self

from stillreel.pretrain.data.together import Together

TERMINATED, INTERRUPTED = 75, 130
_CODES = {signal.SIGTERM: TERMINATED, signal.SIGUSR1: TERMINATED, signal.SIGINT: INTERRUPTED}


class PreemptionHandler:
    """As a context manager it hears SIGTERM and SIGUSR1 (exit 75) and Ctrl-C (exit 130; a second one stops at once).

        with PreemptionHandler() as preemption:
            for batch in loader:
                step(batch)
                if code := preemption.agreed(together):
                    save(); raise Interrupted("saved; ...", code)

    Only the main thread of a process may make one.
    """

    def __init__(self) -> None:
        self.wanted = 0  # the exit code of what this rank was asked, 0 for nothing
        self._owner = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in _CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self, together: Together) -> int:
        """The exit code that all ranks stop with now, 0 to go on. All of them ask after the same step; any one's request counts.

        One sum over CPU sockets, about 0.1 ms on one machine.
        """
        terminated, interrupted = together.agree([self.wanted == TERMINATED, self.wanted == INTERRUPTED], None)
        return TERMINATED if terminated else INTERRUPTED if interrupted else 0

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            # A forked worker: its parent ends it, by SIGTERM if need be, and is told of all else itself.
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if number == signal.SIGINT and self.wanted == INTERRUPTED:
            raise KeyboardInterrupt
        self.wanted = self.wanted or _CODES[signal.Signals(number)]
