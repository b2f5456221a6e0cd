"""A wish to stop, which the loop grants after a step, on all ranks together.

Unlike `animate.interrupt.stoppable`, nothing is raised where a signal happens to arrive: a step that is cut in half on one rank
would leave the others waiting for its gradients.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from pretrain.data.together import Together

TERMINATED, INTERRUPTED = 75, 130
_CODES = {signal.SIGTERM: TERMINATED, signal.SIGUSR1: TERMINATED, signal.SIGINT: INTERRUPTED}


class StopWish:
    """As a context manager it hears SIGTERM and SIGUSR1 (exit 75) and Ctrl-C (exit 130; a second one stops at once).

        with StopWish() as wish:
            for batch in loader:
                step(batch)
                if code := wish.agreed(together):
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
        """The exit code that all ranks stop with now, 0 to go on. All of them ask after the same step; any one's wish counts.

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


def heed_only_parent(_worker: int = 0) -> None:
    """Let a loader worker outlive signals that are sent to the whole group of processes: a `worker_init_fn`.

    A terminal's Ctrl-C, torchrun and job schedulers signal workers too. A worker that dies of it makes its parent raise in the
    middle of a step, and the checkpoint is lost. So workers ignore what others send, and end by their parent's SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = os.getppid()

    def listen() -> None:
        # The parent's death is noticed by torch's own watch over it.
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
