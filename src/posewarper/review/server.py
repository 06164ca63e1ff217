"""The page's server: what the browser may ask for, and who may ask.

It listens on the loopback interface alone. The address that is printed ends in a token behind ``#``, which
browsers send to nobody; the page exchanges it, once, for a cookie that scripts cannot read and other sites
cannot use. Requests must name a loopback host (against DNS rebinding); those that change something must come
from the page itself, as JSON. No request carries a path, and none is longer than it needs to be.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from posewarper.errors import OutputError, PosewarperError
from posewarper.review.edits import Refused
from posewarper.review.frames import KINDS, FrameRequest
from posewarper.review.labelling import skeleton_to_json
from posewarper.review.session import Session, Stale
from posewarper.skeletons import PRESETS, Skeleton

HOST = "127.0.0.1"
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_MOST_BYTES = 2**20  # of a request
_MOST_FRAMES = 1024  # of a block of poses
_MOST_OPERATIONS = 10_000
_PAGE = {"/": "index.html", "/page.js": "page.js", "/page.css": "page.css", "/icon.svg": "icon.svg"}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_HEARTBEAT = 15.0  # seconds between signs of life, by which a page learns that the server is gone

_T = TypeVar("_T")


class Gate:
    """Who may ask: one token, which is exchanged once, and one cookie."""

    def __init__(self, port: int) -> None:
        self.token: str | None = secrets.token_urlsafe(24)
        self._cookie = secrets.token_urlsafe(32)
        self.name = f"posewarper_{port}"  # cookies are those of all ports of a host
        self._lock = threading.Lock()

    def exchange(self, token: str) -> str | None:
        """Return the cookie for the token, the first time; afterwards, and for others, None."""
        with self._lock:
            if self.token is None or not hmac.compare_digest(token.encode(), self.token.encode()):
                return None
            self.token = None
            return self._cookie

    def lets_in(self, request: Request) -> bool:
        """Return whether a request has the cookie."""
        return hmac.compare_digest(request.cookies.get(self.name, "").encode(), self._cookie.encode())


class _Guard:
    """Checks every request before it is looked at, and marks every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                names = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in own if pair[0] not in names)]
                if b"cache-control" not in names:
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        problem = _refuse(Request(scope))
        if problem is not None:
            await problem(scope, receive, marked)
            return
        await self.app(scope, receive, marked)


def _refuse(request: Request) -> Response | None:
    """Return the answer to a request that is refused, whatever it asks for."""
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or not _LOOPBACK.fullmatch(hosts[0]):
        return _problem(400, "this server answers to 127.0.0.1 and localhost alone")
    # Browsers say where a request comes from; "none" is the address line. A link elsewhere, as in a terminal
    # that is a web page, may lead to the page, which holds nothing itself.
    is_link = request.url.path == "/" and request.headers.get("sec-fetch-dest") == "document"
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and not is_link:
        return _problem(403, "this request comes from another page")
    if request.method in ("GET", "HEAD"):
        return None
    if request.headers.getlist("origin") != [f"http://{hosts[0]}"]:
        return _problem(403, "this request does not come from the page of posewarper")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _problem(415, "only JSON is taken")
    return None


def _problem(status: int, text: str, **more: Any) -> JSONResponse:
    return JSONResponse({"problem": text, **more}, status)


async def _body(request: Request, known: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Return the body, whose values must be of the types that are known by their names."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MOST_BYTES:
            raise HTTPException(413, f"a request has at most {_MOST_BYTES} bytes")
    try:
        values = json.loads(content, parse_constant=_no_constant)
        # Half a surrogate pair can be escaped in JSON, and then neither be sent nor be written to any file.
        json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise HTTPException(400, "this is no JSON") from None
    if not isinstance(values, dict) or (set(values) - set(known)):
        raise HTTPException(400, f"expected an object with {', '.join(known)}")
    for name, kinds in known.items():
        value = values.setdefault(name, None)
        if type(value) not in kinds:
            raise HTTPException(400, f"{name} is missing or of a wrong type")
    return values


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity, which JSON does not know


def _whole(request: Request, name: str, otherwise: int) -> int:
    text = request.query_params.get(name, str(otherwise))
    if not re.fullmatch(r"\d{1,9}", text):
        raise HTTPException(400, f"{name} is a number of frames")
    return int(text)


class Routes:
    """What can be asked for; one session serves one page."""

    def __init__(self, session: Session, gate: Gate) -> None:
        self.session, self.gate = session, gate
        self.closing = asyncio.Event()

    def application(self) -> Starlette:
        """Return the application that serves the page."""
        routes = [Route(path, self.page, methods=["GET"]) for path in _PAGE]
        routes += [
            Route("/api/enter", self.enter, methods=["POST"]),
            Route("/api/session", self._known(self.describe), methods=["GET"]),
            Route("/api/poses", self._known(self.poses), methods=["GET"]),
            Route("/api/timeline", self._known(self.timeline), methods=["GET"]),
            Route("/api/doubts", self._known(self.doubts), methods=["GET"]),
            Route("/api/doubts", self._known(self.set_status), methods=["POST"]),
            Route("/api/edits", self._known(self.edit), methods=["POST"]),
            Route("/api/run", self._known(self.run), methods=["POST"]),
            Route("/api/suggest", self._known(self.suggest), methods=["POST"]),
            Route("/api/cancel", self._known(self.cancel), methods=["POST"]),
            Route("/api/skeletons", self._known(self.skeletons), methods=["GET"]),
            Route("/api/events", self._known(self.events), methods=["GET"]),
            Route("/frame/{index:int}.{kind}", self._known(self.frame), methods=["GET"]),
        ]
        handlers: Any = {
            HTTPException: _on_http,
            ClientDisconnect: lambda request, error: Response(status_code=400),  # nobody reads it
            Refused: lambda request, error: _problem(422, str(error)),
            Stale: lambda request, error: _problem(409, str(error), **session_state(self.session)),
            PosewarperError: lambda request, error: _problem(500, str(error)),
            OSError: lambda request, error: _problem(507, f"cannot be saved: {_in_words(error)}"),
        }
        return Starlette(routes=routes, middleware=[Middleware(_Guard)], exception_handlers=handlers)

    def _known(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if not self.gate.lets_in(request):
                return _problem(401, "open the address that posewarper label has printed")
            return await handler(request)

        return guarded

    async def page(self, request: Request) -> Response:
        """The page itself, which holds nothing of the labelling."""
        name = _PAGE[request.url.path]
        content = (files("posewarper.review") / "static" / name).read_bytes()
        kind = _TYPES[name.rpartition(".")[2]]
        return _with_tag(request, content, f"{kind}; charset=utf-8", "no-cache")

    async def enter(self, request: Request) -> Response:
        """Exchange the token for the cookie."""
        values = await _body(request, {"token": (str,)})
        cookie = self.gate.exchange(values["token"])
        if cookie is None:
            return _problem(401, "this address was used before, or is not that of this server")
        answer = JSONResponse({})
        how = {"httponly": True, "samesite": "strict", "path": "/"}
        answer.set_cookie(self.gate.name, cookie, max_age=30 * 86400, **how)
        return answer

    async def describe(self, request: Request) -> Response:
        """What the page begins with."""
        return JSONResponse(await run_in_threadpool(self.session.describe))

    async def skeletons(self, request: Request) -> Response:
        """Skeletons to choose from."""
        return JSONResponse({name: skeleton_to_json(skeleton) for name, skeleton in STARTS.items()})

    async def poses(self, request: Request) -> Response:
        """Poses of some frames: float32, see :meth:`~posewarper.review.session.Session.block`."""
        last = self.session.frames.n_frames - 1
        first, stop = _whole(request, "from", 0), _whole(request, "to", last)
        if not first <= stop <= last or stop - first >= _MOST_FRAMES:
            raise HTTPException(400, f"from and to are frames up to {last}, at most {_MOST_FRAMES} of them")
        block = await run_in_threadpool(self.session.block, first, stop)
        return Response(block, media_type="application/octet-stream")

    async def timeline(self, request: Request) -> Response:
        """The expected errors and the labels of the whole clip."""
        return JSONResponse(await run_in_threadpool(self.session.timeline))

    async def doubts(self, request: Request) -> Response:
        """What is worth a look."""
        return JSONResponse(await run_in_threadpool(self.session.doubts))

    async def set_status(self, request: Request) -> Response:
        """Tick a doubt off."""
        values = await _body(request, {"id": (str,), "status": (str,)})
        await run_in_threadpool(self.session.set_status, values["id"], values["status"])
        return JSONResponse(await run_in_threadpool(self.session.doubts))

    async def edit(self, request: Request) -> Response:
        """Make an edit."""
        values = await _body(request, {"id": (str,), "base": (int,), "operations": (list,)})
        operations = values["operations"]
        if len(values["id"]) > 100 or len(operations) > _MOST_OPERATIONS:
            raise HTTPException(400, "the edit is too long")
        if not all(isinstance(operation, dict) for operation in operations):
            raise HTTPException(400, "an operation is an object")
        how = operations, values["id"], values["base"]
        return JSONResponse(await run_in_threadpool(self.session.edit, *how))

    async def run(self, request: Request) -> Response:
        """Begin a run."""
        choices = ("model", "extend", "further", "learn")
        values = await _body(request, {"effort": (str,), **{name: (bool, type(None)) for name in choices}})
        how = {name: bool(values[name]) for name in choices}
        return JSONResponse(await run_in_threadpool(lambda: self.session.run(values["effort"], **how)))

    async def cancel(self, request: Request) -> Response:
        """Stop the run."""
        await _body(request, {})
        await run_in_threadpool(self.session.cancel)
        return JSONResponse({})

    async def suggest(self, request: Request) -> Response:
        """Look for frames that are worth a label; the doubts tell when they are found."""
        await _body(request, {})
        self.session.suggest()
        return JSONResponse({})

    async def frame(self, request: Request) -> Response:
        """A frame, or a part of it."""
        index, kind = request.path_params["index"], request.path_params["kind"]
        if kind not in KINDS:
            raise HTTPException(404, "frames are jpg or png")
        crop = request.query_params.get("crop")
        part = None
        if crop is not None:
            if not re.fullmatch(r"\d{1,6}(,\d{1,6}){3}", crop):
                raise HTTPException(400, "crop is x,y,width,height in pixels")
            x, y, width, height = (int(number) for number in crop.split(","))
            part = x, y, width, height
        wanted = FrameRequest(index, kind, "full" in request.query_params, part)
        # The same name stands for the same bytes as long as the video is the same.
        detail = "-".join(map(str, (index, kind, wanted.full, *(part or ()))))
        tag = f'"{(self.session.sha256 or "")[:16]}-{detail}"'
        fresh = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=fresh)
        try:
            content = await asyncio.wrap_future(self.session.frames.read(wanted))
        except IndexError as error:
            raise HTTPException(404, str(error)) from error
        return Response(content, media_type=KINDS[kind], headers=fresh)

    async def events(self, request: Request) -> Response:
        """Tell what happens, as it happens."""
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[str, Mapping[str, Any]]] = asyncio.Queue()

        def put(event: str, values: Mapping[str, Any]) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (event, dict(values)))

        stop = self.session.listen(put)
        ending = asyncio.ensure_future(self.closing.wait())
        coming: asyncio.Future[tuple[str, Mapping[str, Any]]] | None = None
        try:
            yield _as_event("hello", session_state(self.session))
            while not ending.done():
                coming = asyncio.ensure_future(queue.get())
                done, _ = await asyncio.wait(
                    {coming, ending}, timeout=_HEARTBEAT, return_when=asyncio.FIRST_COMPLETED
                )
                if coming in done:
                    yield _as_event(*coming.result())
                else:
                    coming.cancel()
                    yield b": still here\n\n"
        finally:
            ending.cancel()
            if coming is not None:
                coming.cancel()
            stop()


def session_state(session: Session) -> dict[str, Any]:
    """Return what a page that has fallen behind needs to know."""
    return {**session.describe_state(), "tracks": len(session.tracks)}


_MOUSE = Skeleton(
    (
        *("nose", "left_ear", "right_ear", "neck", "left_forepaw", "right_forepaw"),
        *("middle", "left_hindpaw", "right_hindpaw", "tail_base", "tail_middle", "tail_tip"),
    ),
    (
        *((0, 1), (0, 2), (0, 3), (1, 3), (2, 3), (3, 4), (3, 5), (3, 6)),
        *((6, 9), (9, 7), (9, 8), (9, 10), (10, 11)),
    ),
    name="mouse",
)
_LEGS = [f"{side}_{leg}_leg" for leg in ("front", "middle", "hind") for side in ("left", "right")]
_FLY = Skeleton(
    ("head", "left_eye", "right_eye", "thorax", "abdomen", "left_wing", "right_wing", *_LEGS),
    ((0, 1), (0, 2), (0, 3), (3, 4), (3, 5), (3, 6), *((3, 7 + leg) for leg in range(6))),
    name="fly",
)
STARTS = {"mouse": _MOUSE, "fly": _FLY, **PRESETS}
"""Skeletons that the page offers: two simple ones to begin with, and the presets of label formats."""


def _as_event(event: str, values: Mapping[str, Any]) -> bytes:
    return f"event: {event}\ndata: {json.dumps(values)}\n\n".encode()


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, str(error.detail))


def _in_words(error: Exception) -> str:
    return f"{getattr(error, 'strerror', None) or error}"


def _with_tag(request: Request, content: bytes, kind: str, cache: str) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": cache}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def bind(port: int) -> socket.socket:
    """Return a socket of the loopback interface, at a free port if ``port`` is 0.

    Raises:
        OutputError: if the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform == "win32":  # where the other option lets several programs have one port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        fix = "name another port with --port, or leave it out"
        raise OutputError(f"port {port} cannot be used", got=error.strerror, fix=fix) from error
    return listener


class _Server(uvicorn.Server):
    """A server that ends its open streams when it is told to end."""

    def __init__(self, config: uvicorn.Config, routes: Routes, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._routes, self._ready = routes, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, which would go on for ever, and then the server."""
        self._routes.closing.set()
        await super().shutdown(sockets)


def serve(
    session: Session, listener: socket.socket, ready: Callable[[str], None], *, frame: int | None = None
) -> None:
    """Serve the page until Ctrl-C; ``ready`` is told the address once it can be opened.

    The page begins on a ``frame``, by default on the first that is labelled.
    """
    port = listener.getsockname()[1]
    gate = Gate(port)
    address = f"http://{HOST}:{port}/#{gate.token}" + ("" if frame is None else f"&frame={frame}")

    async def run() -> None:
        routes = Routes(session, gate)
        quietly = {"log_level": "error", "access_log": False, "server_header": False, "lifespan": "off"}
        config = uvicorn.Config(
            routes.application(), timeout_graceful_shutdown=3, ws="none", loop="asyncio", **quietly
        )
        await _Server(config, routes, lambda: ready(address)).serve(sockets=[listener])

    asyncio.run(run())
