"""`stillreel serve INDEX`: the page, until Ctrl-C."""

from __future__ import annotations

import resource
import signal
import socket
from ipaddress import ip_address

import uvicorn

from stillreel.configs import RequestError
from stillreel.configs.search import ServeSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.search.app import build_app
from stillreel.finetune.search.guard import PromptProtocol
from stillreel.finetune.search.searcher import Searcher
from stillreel.finetune.search.store import open_index

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_CONNECTIONS = 2000  # more are told 503 at once


def run(index: str, settings: ServeSettings) -> int:
    """Serve until SIGINT or SIGTERM; 0 after SIGTERM."""
    searcher = Searcher(
        open_index(Folder(index)), settings.checkpoint, settings.device, weight=settings.weight, faiss=settings.faiss
    )
    sock = _listen(settings.host, settings.port)
    if settings.rerank and not searcher.can_rerank:
        settings = settings.model_copy(update={"rerank": 0})
    searcher.by_text(["a first query, which is slow"], 1, settings.rerank)
    loopback = _is_loopback(settings.host)
    app = build_app(searcher, settings, _LOOPBACK | {settings.host.lower()} if loopback else frozenset())
    _let_open_files()
    signal.signal(signal.SIGTERM, _end)  # uvicorn hears it first, ends what is under way, and raises it again
    host, port = sock.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    print(f"{index}: {len(searcher.index):,} videos at http://{where}:{port}/   Ctrl-C ends", flush=True)
    if not loopback:
        print("other machines can reach it: whoever does can search and watch all videos of the index", flush=True)
    config = uvicorn.Config(
        app,
        http=PromptProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
        limit_concurrency=_CONNECTIONS,
    )
    uvicorn.Server(config).run([sock])
    return 0


def _end(*_: object) -> None:
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise RequestError(f"host={host} port={port}: cannot be listened on: {error.strerror}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _let_open_files() -> None:
    """Each connection is one open file, and by default a process may have only 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * _CONNECTIONS if hard == resource.RLIM_INFINITY else min(4 * _CONNECTIONS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
