"""The server of ``latentpress view``: for the page it serves, on this machine, and for nobody else.

Other pages open in the same browser can send requests to the loopback interface too. So requests must
name this host, which a page of another site cannot make them do whatever its name resolves to, and those that
change anything must carry a header that only our page may send.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latentpress.scripts.failures import describe, exit_code
from latentpress.scripts.view.bench import Bench
from latentpress.scripts.view.colours import colour_tables
from latentpress.scripts.view.kinds import Item, Rate, Result, Superseded
from latentpress.scripts.view.samples import SAMPLES

HOST = "127.0.0.1"
PAGE_HEADER = b"x-latentpress-page"
MAX_UPLOAD_BYTES = 256 * 2**20

_PAGE_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript")
        for name in ("page", "rate", "server", "numbers", "picture", "field", "plot", "shape", "turntable")
    },
}
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(bench: Bench) -> Starlette:
    """Makes the application.

    Args:
        bench: What does the work.
    """
    routes = [Route(path, _page_file(*where)) for path, where in _PAGE_FILES.items()]
    routes += [
        Route("/api/offer", _offer(bench)),
        Route("/api/items", _add(bench), methods=["POST"]),
        Route("/api/samples/{sample}", _add_sample(bench), methods=["POST"]),
        Route("/api/colours", _colours),
        Route("/api/items/{item}/parts/{part}", _part(bench.item)),
        Route("/api/items/{item}/progress", _progress(bench)),
        Route("/api/items/{item}/results", _compress(bench), methods=["POST"]),
        Route("/api/results/{item}/peers/{peer}", _peer(bench), methods=["POST"]),
        Route("/api/results/{item}/parts/{part}", _part(bench.result)),
        Route("/api/results/{item}/file", _download(bench)),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
            Middleware(_OwnPageOnly),
        ],
        exception_handlers={Exception: _unexpected, HTTPException: _refused},
    )


class ViewServer:
    """The page on a port of the loopback interface, as a context manager that waits until it is there.

    Args:
        bench: What does the work.
        port: 0 for any that is free.

    Raises:
        OSError: The port is in use.
    """

    def __init__(self, bench: Bench, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
        except OSError as error:
            self._socket.close()
            raise OSError(
                error.errno, f"{error.strerror} (choose another with --port)", f"port {port}"
            ) from None
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/"
        config = uvicorn.Config(make_app(bench), log_level="warning", ws="none", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> ViewServer:
        """Starts it in a thread of its own."""
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it, with the connections that are open."""
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join()
        self._socket.close()

    def wait(self) -> None:
        """Waits until somebody interrupts the process."""
        while self._thread.is_alive():
            self._thread.join(1.0)


class _OwnPageOnly:
    """Refuses what another page could have sent, and puts headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        changes = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD")
        # Another page cannot set the header without asking first (CORS), and nobody answers that.
        if changes and PAGE_HEADER not in dict(scope["headers"]):
            await JSONResponse({"error": "not from this page"}, 403)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in names]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _page_file(name: str, media_type: str) -> Endpoint:
    path = resources.files("latentpress.scripts.view") / "page" / name

    async def send(_: Request) -> Response:
        return Response(path.read_bytes(), media_type=media_type)

    return send


def _offer(bench: Bench) -> Endpoint:
    async def offer(_: Request) -> Response:
        samples = [
            {"name": name, "kind": sample.kind, "title": sample.title} for name, sample in SAMPLES.items()
        ]
        return JSONResponse({**bench.describe(), "samples": samples})

    return offer


def _add(bench: Bench) -> Endpoint:
    async def add(request: Request) -> Response:
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > MAX_UPLOAD_BYTES:
                raise HTTPException(413, f"files may have up to {MAX_UPLOAD_BYTES >> 20} MiB")
        name = request.query_params.get("name", "picture")
        return await _answer(bench.add, name, bytes(content))

    return add


def _compress(bench: Bench) -> Endpoint:
    async def compress(request: Request) -> Response:
        try:
            rate = Rate(**await request.json())
        except (ValueError, TypeError):
            raise HTTPException(400, "not a rate") from None
        return await _answer(bench.compress, request.path_params["item"], rate)

    return compress


def _peer(bench: Bench) -> Endpoint:
    async def peer(request: Request) -> Response:
        return await _answer(bench.at_equal_bytes, request.path_params["item"], request.path_params["peer"])

    return peer


def _add_sample(bench: Bench) -> Endpoint:
    async def add(request: Request) -> Response:
        sample = SAMPLES.get(request.path_params["sample"])
        if sample is None:
            raise HTTPException(404, "there is no such sample")
        return await _answer(lambda: bench.add(sample.name, sample.make()))

    return add


def _part(find: Callable[[str], Item | Result[Any]]) -> Endpoint:
    async def part(request: Request) -> Response:
        found = _found(find, request)
        try:
            content = await run_in_threadpool(found.part, request.path_params["part"], request.query_params)
        except KeyError:
            raise HTTPException(404, "there is no such part") from None
        except ValueError as error:
            raise HTTPException(422, describe(error)) from None
        kept = {"cache-control": "private, max-age=3600"}
        return Response(content.data, media_type=content.media_type, headers=kept)

    return part


def _progress(bench: Bench) -> Endpoint:
    async def progress(request: Request) -> Response:
        return JSONResponse(bench.progress(request.path_params["item"])._asdict())

    return progress


async def _colours(_: Request) -> Response:
    return JSONResponse(await run_in_threadpool(colour_tables))


def _download(bench: Bench) -> Endpoint:
    async def download(request: Request) -> Response:
        found = _found(bench.result, request)
        # RFC 6266: the name as UTF-8, percent-encoded.
        disposition = f"attachment; filename*=UTF-8''{quote(found.filename, safe='')}"
        return Response(
            found.data, media_type="application/octet-stream", headers={"content-disposition": disposition}
        )

    return download


def _found(find: Callable[[str], Any], request: Request) -> Any:
    try:
        return find(request.path_params["item"])
    except KeyError:
        raise HTTPException(404, "that is no longer kept: drop the file again") from None


async def _answer(work: Callable[..., Any], *arguments: Any) -> Response:
    """Does work in a thread; what a user can cause becomes a sentence for the page."""
    try:
        made = await run_in_threadpool(work, *arguments)
    except Superseded:
        raise HTTPException(409, "superseded") from None
    except KeyError:
        raise HTTPException(404, "that is no longer kept: drop the file again") from None
    except Exception as error:
        if exit_code(error) is None:
            raise
        raise HTTPException(422, describe(error)) from error
    return JSONResponse(made.describe())


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _unexpected(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"a fault of the program: {type(error).__name__}"}, 500)
