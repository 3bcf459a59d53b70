"""A model server for tests and proofs of `a2r serve`. It streams the output of a function or of a real
server, injects faults, and records when each request arrived, was answered, or was abandoned by its client.
"""

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

Body = dict[str, Any]
Chunks = Callable[[Body], AsyncIterator[dict[str, Any]]]
FAULTS = ("429", "503", "reset", "half", "stall")
MARK = re.compile(r"request \d+")


@dataclass
class Seen:
    """One request, with times by `time.monotonic`. ended: `done`, `left` (by its client), or the fault."""

    body: Body
    headers: dict[str, str]
    came: float
    first: float = 0.0
    end: float = 0.0
    ended: str = ""


class FaultyUpstream:
    """Serves one model over raw connections, so that it can break them. `fault` returns the fault of the next
    request: one of FAULTS, a status, `cut` (a reset after some text), or "" for none.
    """

    def __init__(
        self, model: str, chunks: Chunks, fault: Callable[[], str] = str, stall_s: float = 20.0
    ) -> None:
        self.model, self.chunks, self.fault, self.stall_s = model, chunks, fault, stall_s
        self.seen: list[Seen] = []
        self.context: int | None = None
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self.url

    def stop(self) -> None:
        assert self._server
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if " /v1/models " in first:
                _answer(writer, 200, {"data": [{"id": self.model, "max_model_len": self.context}]})
            else:
                await self._completion(reader, writer, json.loads(body), headers)
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    async def _completion(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Body, headers: dict[str, str]
    ) -> None:
        seen = Seen(body, headers, time.monotonic())
        self.seen.append(seen)
        fault = self.fault()
        work = asyncio.create_task(self._reply(writer, seen, fault))
        left = asyncio.create_task(reader.read(1))  # returns when the client leaves, as it sends nothing more
        await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        seen.end = time.monotonic()
        seen.ended = (fault or "done") if work.done() else "left"
        for task in (work, left):
            task.cancel()
        await asyncio.gather(work, left, return_exceptions=True)

    async def _reply(self, writer: asyncio.StreamWriter, seen: Seen, fault: str) -> None:
        if fault.isdigit():
            more = {"retry-after": "1"} if fault == "429" else {}
            _answer(writer, int(fault), {"error": {"message": f"injected {fault}"}}, more)
        elif fault == "reset":
            writer.transport.abort()
        else:
            if fault == "stall":
                await asyncio.sleep(self.stall_s)
            await self._stream(writer, seen, fault)
        with suppress(ConnectionError):
            await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter, seen: Seen, fault: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
                     b"connection: close\r\n\r\n")  # fmt: skip
        if fault == "half":
            _part(writer, b'data: {"id": "x", "choices": [{"index": 0, "del')
        else:
            async for number, chunk in _numbered(self.chunks(seen.body)):
                seen.first = seen.first or time.monotonic()
                _part(
                    writer, b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"
                )  # as vLLM does
                await writer.drain()
                if fault == "cut" and number == 3:
                    writer.transport.abort()
                    return
            _part(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")


async def _numbered(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    number = 0
    async for chunk in chunks:
        yield number, chunk
        number += 1


def _answer(
    writer: asyncio.StreamWriter, status: int, content: Any, more: Mapping[str, str] | None = None
) -> None:
    body = json.dumps(content).encode()
    lines = [f"{name}: {value}" for name, value in (more or {}).items()]
    head = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}", *lines]
    writer.write("\r\n".join([*head, "connection: close", "", ""]).encode() + body)


def _part(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def chunk(index: int, text: str = "", reason: str | None = None, **delta: str) -> dict[str, Any]:
    said = {"content": text, **delta} if text or delta else {}
    return {"choices": [{"index": index, "delta": said, "finish_reason": reason}]}


def saying(write: Callable[[Body], Sequence[str]], wait_s: float = 0.0, prompt_tokens: int = 10) -> Chunks:
    """Stream the texts that a function returns for a body, one per completion; a word counts as a token."""

    async def chunks(body: Body) -> AsyncIterator[dict[str, Any]]:
        texts, count = write(body), 0
        for index, text in enumerate(texts):
            for word in re.findall(r"\S+\s*|\s+", text):
                await asyncio.sleep(wait_s)
                count += 1
                yield chunk(index, word)
            yield chunk(index, reason="stop")
        yield {"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": count}}

    return chunks


def forwarding(url: str, client: httpx2.AsyncClient) -> Chunks:
    """Stream the answers of a real server. After each text comes the prompt's mark (`request 17`), which
    shows whose answer it is; a prompt with the marks of two requests gives CROSSED.
    """

    async def chunks(body: Body) -> AsyncIterator[dict[str, Any]]:
        marks = set(MARK.findall(json.dumps(body["messages"])))
        mark = marks.pop() if len(marks) == 1 else "CROSSED" if marks else ""
        async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                content = json.loads(line[6:])
                for choice in content.get("choices", []):
                    if mark and choice.get("finish_reason"):
                        yield chunk(choice["index"], f" ({mark})")
                yield content

    return chunks


@dataclass
class InThread:
    """An event loop in a separate thread, where upstreams and endpoints run during a test."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def run(self, work: Any, timeout_s: float = 60.0) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)


@contextmanager
def in_thread() -> Iterator[InThread]:
    own = InThread()
    thread = threading.Thread(target=own.loop.run_forever, daemon=True)
    thread.start()
    try:
        yield own
    finally:
        own.loop.call_soon_threadsafe(own.loop.stop)
        thread.join(10)
