"""A pair of scripted upstreams behind a real endpoint, over real sockets, in a thread of the test."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import openai
import uvicorn
from faulty_upstream import Body, Chunks, FaultyUpstream, InThread, in_thread, saying

from a2r_train.inference.serve.app import Endpoint
from a2r_train.inference.serve.config import ServeConfig
from a2r_train.inference.serve.run import Prompters, paired, prompters

ROOT = Path(__file__).parents[1]
EXPLORER, SYNTHESIZER = str(ROOT / "data/tiny/explorer"), str(ROOT / "data/tiny/synthesizer")


@dataclass
class Served:
    """Where it listens, and what stands behind it."""

    url: str
    explorer: FaultyUpstream
    synthesizer: FaultyUpstream
    endpoint: Endpoint
    thread: InThread

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


def references(body: Body) -> list[str]:
    """What the explorer says unless a test says otherwise: three of four agree."""
    texts = [r"so \boxed{3}", r"hence \boxed{3}", r"thus \boxed{4}", r"and \boxed{3}"]
    return [texts[at % 4] for at in range(body["n"])]


def synthesis(body: Body) -> list[str]:
    return [r"Both ways it is \boxed{4} in the end"] * body["n"]


@cache
def tiny_prompters() -> Prompters:
    return prompters(ServeConfig(explorer=EXPLORER, synthesizer=SYNTHESIZER))


@contextmanager
def served(
    explorer: Chunks | None = None,
    synthesizer: Chunks | None = None,
    key: str = "",
    prices: Any = None,
    **keys: Any,
) -> Iterator[Served]:
    """An endpoint over two upstreams; `keys` are those of the command."""
    first = FaultyUpstream(EXPLORER, explorer or saying(references))
    second = FaultyUpstream(SYNTHESIZER, synthesizer or saying(synthesis))
    with in_thread() as thread, ExitStack() as stack:
        urls = {"explorer_url": thread.run(first.start()), "synthesizer_url": thread.run(second.start())}
        config = ServeConfig(explorer=EXPLORER, synthesizer=SYNTHESIZER, **{**urls, **keys})
        config.check()
        made: asyncio.Future[Any] = asyncio.Future(loop=thread.loop)
        task = asyncio.run_coroutine_threadsafe(_serve(config, key, prices or {}, made), thread.loop)
        stack.callback(lambda: (first.stop(), second.stop()))
        url, endpoint, server = thread.run(_value(made))
        stack.callback(task.result, 30)
        stack.callback(setattr, server, "should_exit", True)
        yield Served(url, first, second, endpoint, thread)


async def _value(future: Any) -> Any:
    return await future


async def _serve(config: ServeConfig, key: str, prices: Any, made: asyncio.Future[Any]) -> None:
    async with paired(config, tiny_prompters(), prices, {}) as pair:
        endpoint = Endpoint(config, pair, key)
        server = uvicorn.Server(
            uvicorn.Config(
                endpoint.app(),
                port=0,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        made.set_result((f"http://127.0.0.1:{port}", endpoint, server))
        await serving


def forever(body: Body) -> AsyncIterator[dict[str, Any]]:
    """An upstream that goes on until its client leaves."""
    return saying(lambda _: ["word " * 10**4] * body["n"], wait_s=0.02)(body)


ASK: Body = {"model": "a2r", "messages": [{"role": "user", "content": "How many?"}]}


def client_of(pair: Served, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=pair.base_url, api_key="none", max_retries=0, **more)


def post(pair: Served, timeout_s: float = 30.0, **more: Any) -> httpx2.Response:
    return httpx2.post(f"{pair.base_url}/chat/completions", json={**ASK, **more}, timeout=timeout_s)


def faults(*names: str) -> Any:
    """Those befall the first requests, and nothing the others."""
    left = iter(names)
    return lambda: next(left, "")


def until(happens: Any, timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
