"""The endpoint: its routes, the life of a request, and the cleanup when a client disconnects."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from a2r_train.inference.serve.chunks import KEEP_ALIVE, Writer, error_chunk
from a2r_train.inference.serve.config import ServeConfig
from a2r_train.inference.serve.errors import ApiError
from a2r_train.inference.serve.limits import MOST_BODY, Places, check_key, path_through
from a2r_train.inference.serve.metrics import Metrics
from a2r_train.inference.serve.pair import Event, Pair
from a2r_train.inference.serve.request import Ask, parse_ask
from a2r_train.inference.serve.upstream import PATH_HEADER
from a2r_train.inference.serve.usage import Report

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page.html")
# The page contacts only this endpoint, and runs only its own script.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
INTERNAL = ApiError(500, "the endpoint failed; see its log", code="internal", kind="server_error")


class Endpoint:
    """A pair behind HTTP. `key` is the key that clients must send, "" for none."""

    def __init__(self, config: ServeConfig, pair: Pair, key: str) -> None:
        self.config, self.pair, self._key = config, pair, key
        self.places = Places(config.max_concurrent_requests, config.max_waiting_requests)
        self.metrics = Metrics(self.places)
        self._identity, self._began = secrets.token_hex(8), int(time.time())
        self._page = PAGE.read_text(encoding="utf-8")

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/", self._show_page),
        ]
        handlers: dict[Any, Any] = {ApiError: _refuse, HTTPException: _refuse_route, Exception: _fail}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def _chat(self, request: Request) -> Response:
        self.metrics.came()
        try:
            check_key(request.headers.get("authorization", ""), self._key)
            path = path_through(request.headers.get(PATH_HEADER, ""), self._identity)
            ask = parse_ask(await _body(request), self.config)
        except ApiError as error:
            self.metrics.failed(error.code)
            raise
        return _Answering(self, ask, path)

    async def work(self, ask: Ask, path: str, events: asyncio.Queue[Event | Report | ApiError]) -> None:
        """Answer one request into a queue; the last item is the report or an error."""
        try:
            report = await self._answered(ask, path, events)
        except ApiError as error:
            self.metrics.failed(error.code)
            events.put_nowait(error)
        except Exception:  # whatever it was, the client gets an error, and the log says what
            log.exception("a request failed")
            self.metrics.failed(INTERNAL.code)
            events.put_nowait(INTERNAL)
        else:
            for warning in report.warnings:
                log.warning("%s", warning)
            self.metrics.answered(report)
            events.put_nowait(report)

    async def _answered(self, ask: Ask, path: str, events: asyncio.Queue[Any]) -> Report:
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + self.config.deadline_s
        try:
            async with asyncio.timeout(self.config.deadline_s) as waiting, self.places.place() as waited_s:
                waiting.reschedule(None)  # from here the pair keeps the deadline: it may still answer by vote
                report = await self.pair.answer(ask, path, deadline, events.put_nowait)
        except TimeoutError:
            says = f"no slot became free within {self.config.deadline_s:g} s"
            wait_s = self.places.expected_wait_s()
            raise ApiError(
                503, says, code="waited_too_long", kind="rate_limit_error", retry_after_s=wait_s
            ) from None
        report.seconds = {"wait": waited_s, **report.seconds, "all": loop.time() - began}
        return report

    async def _models(self, request: Request) -> Response:
        check_key(request.headers.get("authorization", ""), self._key)
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _model(self, request: Request) -> Response:
        check_key(request.headers.get("authorization", ""), self._key)
        if (name := request.path_params["name"]) != self.config.name:
            raise ApiError(404, f"model: {ascii(name)[:80]} is not served", code="model_not_found")
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        own = {"k": self.config.k, "explorer": self.config.explorer, "synthesizer": self.config.synthesizer}
        row = {"id": self.config.name, "object": "model", "created": self._began, "owned_by": "a2r-train"}
        return {**row, "a2r": own}

    async def _health(self, _: Request) -> Response:
        stages = {"explorer": self.pair.explorer, "synthesizer": self.pair.synthesizer}
        faults = await asyncio.gather(*(stage.upstream.fault() for stage in stages.values()))
        for fault in filter(None, faults):
            log.warning("health: %s", fault)
        said = {name: "down" if fault else "ok" for name, fault in zip(stages, faults, strict=True)}
        status = "down" if any(faults) else "ok"
        return JSONResponse({"status": status, **said}, 503 if any(faults) else 200)

    async def _metrics(self, request: Request) -> Response:
        check_key(request.headers.get("authorization", ""), self._key)
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _show_page(self, _: Request) -> Response:
        return HTMLResponse(self._page, headers=PAGE_HEADERS)


class _Answering(Response):
    """The answer to one request. Both stages are cancelled as soon as the client disconnects."""

    def __init__(self, endpoint: Endpoint, ask: Ask, path: str) -> None:
        super().__init__()
        self._endpoint, self._ask, self._path = endpoint, ask, path
        self._events: asyncio.Queue[Event | Report | ApiError] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._endpoint.work(self._ask, self._path, self._events))
        answer = self._streamed(send) if self._ask.stream else self._whole(send)
        sending = asyncio.create_task(self._sent(answer, scope, receive, send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self._endpoint.metrics.left()
            else:
                sending.result()
        except asyncio.CancelledError:  # the drain is over; no caller needs to know
            self._endpoint.metrics.failed("drained")
        finally:
            for task in (work, sending, gone):
                task.cancel()
            await asyncio.gather(work, sending, gone, return_exceptions=True)

    async def _sent(self, answer: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, or the error if nothing has been sent yet."""
        try:
            await answer
        except ApiError as error:
            await _error(error)(scope, receive, send)
        except OSError:
            self._endpoint.metrics.left()

    async def _whole(self, send: Send) -> None:
        events: list[Event] = []
        while not isinstance(event := await self._events.get(), Report):
            if isinstance(event, ApiError):
                raise event
            events.append(event)
        body = Writer(self._ask, self._endpoint.config.name).whole(events, event)
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        await send(_start(200, headers))
        await send({"type": "http.response.body", "body": body})

    async def _streamed(self, send: Send) -> None:
        writer = Writer(self._ask, self._endpoint.config.name)
        headers = {"content-type": "text/event-stream; charset=utf-8", **STREAM_HEADERS}
        begun = False
        while True:
            event = await self._next()
            if isinstance(event, ApiError) and not begun:
                raise event
            for chunk in _chunks_of(writer, event):
                if not begun:  # until the first chunk, an error can still set the status
                    await send(_start(200, headers))
                    begun = True
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if isinstance(event, Report | ApiError):
                await send({"type": "http.response.body", "body": b""})
                return

    async def _next(self) -> Event | Report | ApiError | None:
        """The next event; None if there was none for `keep_alive_s`."""
        with suppress(asyncio.QueueEmpty):
            return self._events.get_nowait()
        try:
            async with asyncio.timeout(self._endpoint.config.keep_alive_s):
                return await self._events.get()
        except TimeoutError:
            return None


def _chunks_of(writer: Writer, event: Event | Report | ApiError | None) -> Any:
    if event is None:
        return [KEEP_ALIVE]
    if isinstance(event, ApiError):
        return [error_chunk(event)]
    return writer.last(event) if isinstance(event, Report) else writer.chunks(event)


def _start(status: int, headers: dict[str, str]) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


async def _gone(receive: Receive) -> None:
    """Returns when the client has disconnected; its body has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> bytes:
    """The body. Raises ApiError if its header does not say JSON, or if it is too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415, "expected the header `Content-Type: application/json`", code="unsupported_media_type"
        )
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MOST_BODY:
                raise ApiError(413, f"the body is larger than {MOST_BODY} bytes", code="too_large")
    except ClientDisconnect:
        raise ApiError(400, "the client disconnected", code="client_left") from None
    return bytes(body)


def _error(error: ApiError) -> Response:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    return JSONResponse(error.body, error.status, {**error.headers, **headers})


async def _refuse(_: Request, error: ApiError) -> Response:
    return _error(error)


async def _refuse_route(request: Request, error: HTTPException) -> Response:
    says = f"{request.method} {ascii(request.url.path)[1:-1][:100]}: {error.detail}"
    return _error(ApiError(error.status_code, says, code="no_such_route"))


async def _fail(_: Request, __: Exception) -> Response:
    return _error(INTERNAL)
