"""One model behind one or several OpenAI-compatible servers: single tries, the kinds of their failures, and
the waits between tries.

A cancelled task closes its connection, which tells the server that nobody is waiting any more.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from a2r_train.engines.openai import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    PREFLIGHT_S,
    REFUSED,
    api_key,
    on_one_line,
    parted,
    retry_after_s,
    words_of,
)
from a2r_train.inference.serve.errors import AGAIN, UpstreamError

PATH_HEADER = "x-a2r-path"  # the pairs that a request has passed through
CONNECT_S = 10.0
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
KINDS = {401: "denied", 403: "denied", 404: "denied", 429: "rate_limited", 503: "unavailable", 508: "loop"}
KINDS |= {408: "timeout", 504: "timeout", **dict.fromkeys(REFUSED, "refused")}


@dataclass(frozen=True)
class Usage:
    """Tokens as counted by a server; None if it does not count."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Piece:
    """A part of one of several completions: its thinking, its text, and at its end the finish reason."""

    index: int
    thinking: str = ""
    text: str = ""
    finish_reason: str = ""


class Upstream:
    """The servers of one model, asked in turn; after a failure that may pass, the next one is tried."""

    def __init__(
        self, served_as: str, urls: list[str], client: httpx2.AsyncClient, tries: int, silence_s: float
    ) -> None:
        self.served_as, self.urls, self.tries = served_as, urls, tries
        self._client, self._turn = client, itertools.count()
        self._timeout = httpx2.Timeout(silence_s, connect=min(CONNECT_S, silence_s), pool=None)
        self._key = api_key()

    def home(self) -> int:
        """The server that the next request tries first."""
        return next(self._turn) % len(self.urls)

    async def wait(self, error: UpstreamError, number: int) -> None:
        """Wait before the try that follows try `number`. Raises the error if there is none."""
        elsewhere = error.kind == "denied" and number + 1 < len(self.urls)  # it is of one server alone
        if not (error.kind in AGAIN or elsewhere) or number + 1 >= self.tries:
            raise error
        jitter = random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**number))
        await asyncio.sleep(min(error.retry_after_s, LONGEST_WAIT_S) + jitter)

    async def pieces(
        self, place: int, body: Mapping[str, Any], path: str
    ) -> AsyncGenerator[Piece | Usage, None]:
        """One try, at the server with index `place`: the completions as they come, and their usage.

        Raises UpstreamError, possibly after some pieces.
        """
        url = f"{self.urls[place % len(self.urls)]}/chat/completions"
        request = self._client.build_request(
            "POST",
            url,
            json={"model": self.served_as, **body, **STREAMED},
            headers={PATH_HEADER: path},
            timeout=self._timeout,
        )
        response = None
        try:
            response = await self._client.send(request, stream=True)
            if response.status_code != 200:
                raise await self._refusal(response)
            async for piece in _streamed(response):
                yield piece
        except httpx2.TimeoutException as error:
            raise UpstreamError("timeout", f"{url}: no reply for too long ({type(error).__name__})") from None
        except httpx2.HTTPError as error:
            says = on_one_line(str(error), self._key) or type(error).__name__
            raise UpstreamError("lost", f"{url}: {says}") from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise UpstreamError("broken", f"{url}: an invalid answer ({type(error).__name__})") from None
        finally:
            if response is not None:
                await response.aclose()

    async def _refusal(self, response: httpx2.Response) -> UpstreamError:
        await response.aread()
        status = response.status_code
        says = f"{response.url}: status {status}: {words_of(response, self._key)}"
        kind = KINDS.get(status, "error" if status >= 500 else "broken")
        return UpstreamError(kind, says, retry_after_s(response))

    async def served(self, url: str) -> list[dict[str, Any]]:
        """The models of one server, from its /models. Raises UpstreamError."""
        try:
            response = await self._client.get(f"{url}/models", timeout=PREFLIGHT_S)
            if response.status_code != 200:
                raise await self._refusal(response)
            return [dict(row) for row in response.json()["data"]]
        except httpx2.HTTPError as error:
            says = on_one_line(str(error), self._key) or type(error).__name__
            raise UpstreamError("lost", f"{url}: {says}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UpstreamError("broken", f"{url}: an invalid answer ({type(error).__name__})") from None

    async def fault(self) -> str:
        """What is wrong with the servers, if none of them serves the model now; otherwise ""."""
        said = []
        for url in self.urls:
            try:
                names = [str(row.get("id")) for row in await self.served(url)]
            except UpstreamError as error:
                said.append(str(error))
            else:
                if self.served_as in names:
                    return ""
                said.append(f"{url}: serves {', '.join(names)}, not {self.served_as}")
        return "; ".join(said)

    async def context(self) -> int | None:
        """The most tokens that the model can read and write at any of its servers, if one says so (vLLM
        does).
        """
        told: list[int] = []
        for url in self.urls:
            with suppress(UpstreamError):
                rows = [row for row in await self.served(url) if row.get("id") == self.served_as]
                told += [most for row in rows if isinstance(most := row.get("max_model_len"), int)]
        return min(told, default=None)


async def _streamed(response: httpx2.Response) -> AsyncIterator[Piece | Usage]:
    """Raises ValueError if the stream ends early, and UpstreamError for an error in it."""
    began, ended = set[int](), set[int]()
    async for line in _lines(response):
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            continue  # read to the end of the body, so that the connection can be reused
        content = json.loads(data.decode("utf-8", "replace"))
        if content.get("error"):
            raise UpstreamError("error", f"{response.url}: {str(content['error'])[:200]}")
        for choice in content["choices"]:
            index = int(choice.get("index", 0))
            began.add(index)
            thinking, text = parted(choice.get("delta") or {})
            reason = choice.get("finish_reason") or ""
            if reason:
                ended.add(index)
            if thinking or text or reason:
                yield Piece(index, thinking, text, str(reason))
        if content.get("usage"):
            yield _usage(content)
    if not ended or began - ended:
        raise ValueError("the stream ended early")


async def _lines(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The lines of a stream. `aiter_lines` also ends a line at U+2028 or U+0085, which a text may contain."""
    held = b""
    async for part in response.aiter_bytes():
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            yield line
    yield held


def _usage(content: Mapping[str, Any]) -> Usage:
    usage = content.get("usage") or {}
    return Usage(usage.get("prompt_tokens"), usage.get("completion_tokens"))
