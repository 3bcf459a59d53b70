"""Who may send requests, and how many at once."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from a2r_train.errors import InputError
from a2r_train.inference.serve.errors import ApiError

KEY = "A2R_API_KEY"
MOST_BODY = 16 * 2**20  # bytes
MOST_HOPS = 4  # pairs that a request may pass through
FIRST_GUESS_S = 5.0


def endpoint_key() -> str:
    """The key that clients of this endpoint must send, or "". Raises InputError for a key that no header can
    hold.
    """
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(
            f"{KEY}: contains a space or a character that is not printable ASCII; set another key"
        )
    return key


def check_key(header: str, key: str) -> None:
    """Raises ApiError if the `Authorization` header lacks the key; compares in constant time."""
    kind, _, given = header.partition(" ")
    if key and not (kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode())):
        raise ApiError(
            401,
            "expected the header `Authorization: Bearer KEY` with the key of this endpoint",
            code="invalid_api_key",
            kind="authentication_error",
        )


def path_through(header: str, own: str) -> str:
    """The path of a request with this pair appended. Raises ApiError if the request has been here before."""
    hops = [hop for hop in header.split(",") if hop]
    if own in hops or len(hops) >= MOST_HOPS:
        raise ApiError(
            508,
            "this request comes from the pair itself: name the servers of the two models as "
            "explorer_url and synthesizer_url, not this endpoint",
            code="loop",
            kind="upstream_error",
        )
    return ",".join([*hops, own])


class Places:
    """A limited number of requests under way, and a limited queue before them, first come, first served."""

    def __init__(self, under_way: int, waiting: int) -> None:
        self._most_under_way, self._most_waiting = under_way, waiting
        self._free = asyncio.Semaphore(under_way)
        self.under_way = self.waiting = 0
        self._mean_s = FIRST_GUESS_S

    def _check(self) -> None:
        if self.under_way + self.waiting >= self._most_under_way + self._most_waiting:
            raise ApiError(
                429,
                f"{self.under_way} requests are under way and {self.waiting} are waiting; try again later",
                code="queue_full",
                kind="rate_limit_error",
                retry_after_s=self.expected_wait_s(),
            )

    def expected_wait_s(self) -> float:
        """About how long until a slot in the queue becomes free."""
        return max(1.0, self._mean_s * max(1, self.waiting) / self._most_under_way)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[float]:
        """A slot for one request; yields the seconds that it waited.

        Raises ApiError, with the time to wait, if the queue is full.
        """
        self._check()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        began = loop.time()
        self.under_way += 1
        try:
            yield began - asked
        finally:
            self.under_way -= 1
            self._free.release()
            self._mean_s += 0.1 * (loop.time() - began - self._mean_s)
