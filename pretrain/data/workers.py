"""Loader workers beside the processes that they load for."""

from __future__ import annotations

import os
import signal
import threading


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
