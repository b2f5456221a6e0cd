"""The web application over an open index: a page, and what it asks for.

    GET  /                    the page, whole: it loads nothing else but what follows
    GET  /api/about           how many videos, whether they can be re-ranked, limits
    POST /api/search          {"text": ..., "rerank": bool, "k": int} -> results
    POST /api/like            a picture or a video as the body -> results; ?k=N as many
    GET  /api/similar/ROW     -> results; ?k=N as many
    GET  /video/ROW           the indexed file, by ranges; 404 where it has changed since, or is no file
    GET  /frames/ROW          an mp4 of the frames that the model saw, for files that browsers do not play, and for clips
    GET  /health, /metrics

Files are asked for by row, never by path. What is wrong is told as {"error": ...} with its status.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from stillreel.animate.clips.encode import encode_video
from stillreel.animate.preview.guarded import content_policy
from stillreel.configs import DataError, RequestError, StillreelError
from stillreel.configs.search import ServeSettings
from stillreel.finetune.search.guard import Counts, Desk, Refusal, host_is_known, read_chunks
from stillreel.finetune.search.searcher import Hit, Searcher
from stillreel.finetune.search.sources import OpenFile, open_source
from stillreel.pretrain.video.sandbox import decode_sandboxed

_MOST = 200  # results of a search
_FPS = 3  # of the mp4s of frames
_CLIPS_KEPT = 256  # of them in memory, some 50 kB each
_DECODERS = 2  # processes or threads that decode for visitors
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}

Handler = Callable[[Request], Awaitable[Response]]


class SearchApp:
    """What the routes do. One search at a time; decoding on threads of its own."""

    def __init__(self, searcher: Searcher, settings: ServeSettings, hosts: frozenset[str]) -> None:
        self._searcher, self._settings, self._hosts = searcher, settings, hosts
        self._source = open_source(searcher.index.root, searcher.video)
        self._search, self._decode = Desk(1, settings.waiting), Desk(_DECODERS, settings.waiting)
        self._uploads = 0
        self._filming = threading.Lock()  # a source has one renderer
        self._counts = Counts()
        self._page, self._policy = _page()
        self._frames = lru_cache(_CLIPS_KEPT)(self._make_clip)

    def routes(self) -> list[Route]:
        found: list[tuple[str, Handler, str]] = [
            ("/", self._index, "GET"),
            ("/api/about", self._about, "GET"),
            ("/api/search", self._by_text, "POST"),
            ("/api/like", self._by_file, "POST"),
            ("/api/similar/{row:int}", self._similar, "GET"),
            ("/video/{row:int}", self._video, "GET"),
            ("/frames/{row:int}", self._clip, "GET"),
            ("/health", self._health, "GET"),
            ("/metrics", self._metrics, "GET"),
        ]
        return [
            Route(path, partial(self._guarded, path.split("{")[0].rstrip("/") or "/", handler), methods=[method])
            for path, handler, method in found
        ]

    def close(self) -> None:
        self._search.close()
        self._decode.close()

    async def _guarded(self, route: str, handler: Handler, request: Request) -> Response:
        """The handler's answer, or an error that says what is wrong; counted."""
        begun = time.perf_counter()
        try:
            if not host_is_known(request, self._hosts):
                raise Refusal(421, "this server does not go by that name; host= lets it listen elsewhere")
            response = await handler(request)
        except Refusal as refusal:
            more = {503: {"Retry-After": "1"}, 408: {"Connection": "close"}}.get(refusal.status)
            response = JSONResponse({"error": str(refusal)}, refusal.status, more)
        except StillreelError as error:
            response = JSONResponse({"error": str(error)}, 400 if isinstance(error, RequestError) else 500)
        except OSError as error:  # a disk that went away
            response = JSONResponse(
                {"error": f"the disk of the videos or of the index cannot be read: {error.strerror}"}, 500
            )
        response.headers.update(_HEADERS)
        self._counts.add(route, response.status_code, time.perf_counter() - begun)
        return response

    async def _index(self, _: Request) -> Response:
        return HTMLResponse(self._page, headers={"Content-Security-Policy": self._policy})

    async def _about(self, _: Request) -> Response:
        index = self._searcher.index
        return JSONResponse(
            {
                "videos": len(index),
                "damaged": index.manifest["damaged"],
                "root": index.root.rstrip("/").rpartition("/")[2],
                "folder": index.root.rstrip("/") if self._hosts else "",  # a stranger learns no path of this machine
                "files": bool(len(index)) and self._is_file(0),
                "can_rerank": self._searcher.can_rerank,
                "rerank": self._settings.rerank,
                "k": self._settings.k,
                "max_query": self._settings.max_query,
                "max_upload": self._settings.max_upload,
            }
        )

    async def _by_text(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refusal(415, "a query is sent as application/json")
        most = 12 * self._settings.max_query + 1000  # a character may be spelt \ud83d\ude00
        body = b"".join([chunk async for chunk in read_chunks(request, most, "the query")])
        asked = self._query_in(body)
        rerank = self._settings.rerank if asked["rerank"] else 0
        begun = time.perf_counter()
        work = partial(self._searcher.by_text, [asked["text"]], asked["k"], rerank)
        (hits,) = await self._search.do(work)
        return self._results(hits, begun)

    def _query_in(self, body: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise Refusal(400, 'no JSON; expected {"text": "what should be seen"}') from None
        kinds: dict[str, tuple[type, Any]] = {"text": (str, ""), "rerank": (bool, False), "k": (int, self._settings.k)}
        if not isinstance(asked, dict) or not asked.keys() <= kinds.keys():
            raise Refusal(400, f"expected an object of {', '.join(kinds)}")
        asked = {key: asked.get(key, default) for key, (_, default) in kinds.items()}
        for key, (kind, _) in kinds.items():
            if type(asked[key]) is not kind:
                raise Refusal(400, f"{key} is of another kind than {kind.__name__}")
        text = asked["text"]
        if len(text) > self._settings.max_query:
            raise Refusal(413, f"the query has {len(text):,} characters; at most {self._settings.max_query:,}")
        if not text.strip() or not text.isprintable():
            raise Refusal(400, "the query is empty, or holds what is no text: say in words what should be seen")
        self._k(str(asked["k"]))
        return asked

    def _k(self, given: str | None) -> int:
        """How many results are asked for."""
        if given is None:
            return self._settings.k
        if not (given.isascii() and given.isdigit() and len(given) < 4 and 1 <= int(given) <= _MOST):
            raise Refusal(400, f"k={given[:20]}: expected 1 to {_MOST}")
        return int(given)

    async def _by_file(self, request: Request) -> Response:
        k = self._k(request.query_params.get("k"))
        origin = request.headers.get("origin")
        if origin and origin.partition("://")[2] != request.headers.get("host"):
            raise Refusal(403, "files are taken from this server's own page only")
        if self._uploads >= 2 * _DECODERS:
            raise Refusal(503, "busy: too many files at once; try again in a moment")
        self._uploads += 1
        try:
            with tempfile.TemporaryDirectory(prefix="stillreel-") as home:
                file = Path(home, "upload")
                with file.open("wb") as sink:
                    async for chunk in read_chunks(request, self._settings.max_upload, "the file"):
                        sink.write(chunk)
                if not file.stat().st_size:
                    raise Refusal(400, "the file is empty")
                begun = time.perf_counter()
                try:
                    frames, mask = await self._decode.do(partial(decode_sandboxed, file, self._searcher.video))
                except DataError as error:
                    raise Refusal(422, str(error)) from None
        finally:
            self._uploads -= 1
        hits = await self._search.do(partial(self._searcher.by_frames, frames, mask, k))
        return self._results(hits, begun)

    async def _similar(self, request: Request) -> Response:
        row = self._row(request)
        begun = time.perf_counter()
        hits = await self._search.do(partial(self._searcher.like, row, self._k(request.query_params.get("k"))))
        return self._results(hits, begun, of=self._searcher.index.entry(row).path)

    async def _video(self, request: Request) -> Response:
        try:
            found = self._source.file(self._searcher.index.entry(self._row(request)))
        except DataError as error:
            raise Refusal(404, str(error)) from None
        if found is None:
            raise Refusal(404, "a clip is no file: ask for its /frames")
        return OpenFileResponse(found)

    async def _clip(self, request: Request) -> Response:
        try:
            data = await self._decode.do(partial(self._frames, self._row(request)))
        except DataError as error:
            raise Refusal(404, str(error)) from None
        return Response(data, media_type="video/mp4", headers={"Cache-Control": "private, max-age=3600"})

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "videos": len(self._searcher.index)})

    async def _metrics(self, _: Request) -> Response:
        gauges = {
            "videos": float(len(self._searcher.index)),
            "searches_waiting": float(self._search.taken),
            "decodings_waiting": float(self._decode.taken),
        }
        return PlainTextResponse(self._counts.text(gauges), media_type="text/plain; version=0.0.4")

    def _results(self, hits: list[Hit], begun: float, **more: str) -> Response:
        found = [{**hit.to_json(), "file": self._is_file(hit.row)} for hit in hits]
        return JSONResponse({"results": found, "ms": round(1000 * (time.perf_counter() - begun), 1), **more})

    def _row(self, request: Request) -> int:
        row: int = request.path_params["row"]
        if row >= len(self._searcher.index):
            raise Refusal(404, f"there is no video {row}; the index has {len(self._searcher.index):,}")
        return row

    def _is_file(self, row: int) -> bool:
        try:
            found = self._source.file(self._searcher.index.entry(row))
        except DataError:
            return False
        if found is not None:
            found.close()
        return found is not None

    def _make_clip(self, row: int) -> bytes:
        entry = self._searcher.index.entry(row)
        with self._filming:
            found = self._source.file(entry)  # is still the one that was indexed
            try:
                clip = self._source.read(entry, found)
            finally:
                if found is not None:
                    found.close()
        frames = clip.frames[clip.mask]
        side = frames.shape[1] // 2 * 2  # 4:2:0 has half as many colors, both ways
        return encode_video(frames[:, :side, :side].copy(), fps=_FPS, quality=80)


class OpenFileResponse(FileResponse):
    """A file that is open, by ranges; it is closed when it is sent, or nobody waits any more."""

    def __init__(self, file: OpenFile) -> None:
        super().__init__(file.path, media_type=file.kind, headers={"Cache-Control": "private, max-age=3600"})
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def build_app(searcher: Searcher, settings: ServeSettings, hosts: frozenset[str] = frozenset()) -> Starlette:
    """The application; `hosts` are the names that it goes by, all if empty."""
    app = SearchApp(searcher, settings, hosts)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        yield
        app.close()

    async def broken(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"the server has a bug: {type(error).__name__}"}, 500)

    async def unknown(_: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        return JSONResponse({"error": str(getattr(error, "detail", "not found"))}, status, _HEADERS)

    handlers: dict[Any, Any] = {404: unknown, 405: unknown, Exception: broken}
    return Starlette(routes=app.routes(), exception_handlers=handlers, lifespan=lifespan)


def _page() -> tuple[str, str]:
    """The page in one piece, and the policy that lets it load nothing from elsewhere and run nothing else."""
    here = resources.files("stillreel.finetune.search").joinpath("page")
    parts = {name: here.joinpath(f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    page = Template(here.joinpath("page.html").read_text(encoding="utf-8")).substitute(parts)
    policy = content_policy(
        parts["css"], parts["js"], "connect-src 'self'", "media-src 'self'", "frame-ancestors 'none'"
    )
    return page, policy
