"""What is sent: whole answers, or the chunks of a stream, in the format of OpenAI's API."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable
from typing import Any

from a2r_train.inference.serve.errors import ApiError
from a2r_train.inference.serve.pair import Arrived, Event
from a2r_train.inference.serve.request import Ask
from a2r_train.inference.serve.upstream import Piece
from a2r_train.inference.serve.usage import Report, shown

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


class Writer:
    """Writes one answer; all its parts have the same id."""

    def __init__(self, ask: Ask, model: str) -> None:
        self._ask, self._ended = ask, list[Piece]()
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._begun = set[int]()

    def whole(self, events: Iterable[Event], report: Report) -> bytes:
        """The body of an answer that is not streamed."""
        pieces = [event for event in events if isinstance(event, Piece)]
        choices = [_choice(at, [p for p in pieces if p.index == at]) for at in range(self._ask.n)]
        return _json(
            {
                **self._head,
                "object": "chat.completion",
                "choices": choices,
                "usage": report.usage(),
                "a2r": report.block(self._ask.references),
            }
        )

    def chunks(self, event: Event) -> Iterable[bytes]:
        """The chunks of an event. The end of a synthesis is left to `last`, which says who answered."""
        if isinstance(event, Arrived):
            if self._ask.references:
                yield self._chunk([], a2r={"reference": {"at": event.at, **shown(event.reference)}})
            return
        if event.index not in self._begun:
            self._begun.add(event.index)
            yield self._chunk([_delta(event.index, {"role": "assistant", "content": ""})])
        said = {"reasoning_content": event.thinking, "content": event.text}
        if delta := {name: text for name, text in said.items() if text}:
            yield self._chunk([_delta(event.index, delta)])
        if event.finish_reason:
            self._ended.append(event)

    def last(self, report: Report) -> Iterable[bytes]:
        """The end of each synthesis, and the usage if it was asked for."""
        for piece in self._ended:
            yield self._chunk([_delta(piece.index, {}, piece.finish_reason)], a2r=report.said())
        if self._ask.include_usage:
            yield self._chunk([], usage=report.usage(), a2r=report.block(self._ask.references))
        yield DONE

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        usage = {"usage": None} if self._ask.include_usage else {}
        return _event({**self._head, "object": "chat.completion.chunk", "choices": choices, **usage, **more})


def error_chunk(error: ApiError) -> bytes:
    """An error after the stream has begun; OpenAI's clients raise it."""
    return _event(error.body)


def _choice(index: int, pieces: list[Piece]) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(piece.text for piece in pieces)}
    if thinking := "".join(piece.thinking for piece in pieces):
        message["reasoning_content"] = thinking
    reason = next((piece.finish_reason for piece in reversed(pieces) if piece.finish_reason), "stop")
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def _delta(index: int, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + _json(content) + b"\n\n"


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
