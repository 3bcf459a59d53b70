"""`a2r serve` under load, compared with direct requests to its two upstreams; models of data/tiny, vLLM.

    python scripts/proofs/serve_load.py --output docs/measured/serve_cpu.json

1. overhead: the same problems alternately through the endpoint and by hand (stage 1 with n=4, rendering the
   prompt of stage 2, stage 2), with 1 and with 8 concurrent requests; the ratio of the medians.
2. first token: the time from the end of stage 1 to the first token of stage 2, for the endpoint and upstream.
3. faults: 500 requests, 32 at a time. Of the upstream requests, 10 % each get 429, 503, a reset, half of
   their JSON, and a stall of 20 s. Every answer carries the number of its request.
4. memory: the endpoint's resident memory over these requests, after 32 requests of warm-up.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
from faulty_upstream import FAULTS, FaultyUpstream, forwarding

from a2r_train.inference.serve.child import Child, started
from a2r_train.inference.serve.config import ServeConfig
from a2r_train.inference.serve.run import Prompters, prompters
from a2r_train.inference.work import Work
from a2r_train.paths import TINY_PAIR

ROOT = Path(__file__).parents[2]
K, MOST_TOKENS = 4, 112
URL = re.compile(r" at (http://\S+)/v1$")


def problems(count: int) -> list[str]:
    rows = (ROOT / "data/tiny/test.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    return [str(json.loads(row)["problem"]) for row in rows]


@asynccontextmanager
async def serving(urls: dict[str, str], *more: str) -> AsyncIterator[tuple[str, psutil.Process]]:
    """Run `a2r serve` as a separate process; yields its base URL and the process."""
    given = [word for stage in ("explorer", "synthesizer") for word in (f"--{stage}_url", urls[stage])]
    command = [sys.executable, "-m", "a2r_train.cli", "serve", "--port", "0", *given, *more]
    command += [
        "--max_reference_completion_tokens",
        str(MOST_TOKENS),
        "--max_completion_tokens",
        str(MOST_TOKENS),
    ]
    with (
        open(os.devnull, "w") as nowhere,
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr
        try:
            url = await asyncio.to_thread(_url_in, process.stderr)
            with subprocess.Popen(
                ["cat"], stdin=process.stderr, stdout=nowhere
            ):  # drains the warnings about faults
                yield f"{url}/v1", psutil.Process(process.pid)
                process.terminate()
        finally:
            process.terminate()


def _url_in(lines: Iterable[str]) -> str:
    """The URL in the log. Raises RuntimeError if the endpoint ends before it logs one."""
    said = []
    for line in lines:
        said.append(line)
        if found := URL.search(line.strip()):
            return found[1]
    raise RuntimeError("".join(said))


class ByHand:
    """What users would write to query the two servers themselves."""

    def __init__(self, made: Prompters, urls: dict[str, str], client: httpx2.AsyncClient) -> None:
        self.made, self.urls, self.client = made, urls, client

    async def whole(self, problem: str, seed: int) -> str:
        references = await self._references(problem, seed)
        body = self._second(problem, references, seed)
        answer = await self.client.post(f"{self.urls['synthesizer']}/chat/completions", json=body)
        return str(answer.json()["choices"][0]["message"]["content"])

    async def first_token_s(self, problem: str, seed: int) -> float:
        """Seconds from the request of stage 2 to its first token."""
        body = self._second(problem, await self._references(problem, seed), seed)
        began = time.perf_counter()
        return await _first(self.client, f"{self.urls['synthesizer']}/chat/completions", body) - began

    async def _references(self, problem: str, seed: int) -> Work:
        chat = self.made.explorer.explorer(problem)
        body = {"model": TINY_PAIR[0], "messages": list(chat), "n": K, "temperature": 1.0, "seed": seed,
                "max_tokens": MOST_TOKENS}  # fmt: skip
        answer = await self.client.post(f"{self.urls['explorer']}/chat/completions", json=body)
        work = Work(problem, "math", self.made.synthesizer.config, self.made.explorer.config)
        work.references += [work.reference(c["message"]["content"]) for c in answer.json()["choices"]]
        return work

    def _second(self, problem: str, work: Work, seed: int) -> dict[str, Any]:
        chat = self.made.synthesizer.synthesizer(problem, work.references).chat
        return {"model": TINY_PAIR[1], "messages": list(chat), "temperature": 0.0, "seed": seed,
                "max_tokens": MOST_TOKENS}  # fmt: skip


class ByEndpoint:
    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self.url, self.client = url, client

    def body(self, problem: str, seed: int, **more: Any) -> dict[str, Any]:
        turns = [{"role": "user", "content": problem}]
        return {"model": "a2r", "messages": turns, "seed": seed, "max_tokens": MOST_TOKENS, **more}

    async def whole(self, problem: str, seed: int) -> str:
        answer = await self.client.post(f"{self.url}/chat/completions", json=self.body(problem, seed))
        return str(answer.json()["choices"][0]["message"]["content"])

    async def first_token_s(self, problem: str, seed: int) -> float:
        """The endpoint's own figure for a streamed request, from the end of stage 1."""
        body = self.body(problem, seed, stream=True, stream_options={"include_usage": True})
        async with self.client.stream("POST", f"{self.url}/chat/completions", json=body) as answer:
            rows = [json.loads(line[6:]) async for line in answer.aiter_lines() if line.startswith("data: {")]
        return float(rows[-1]["a2r"]["seconds"]["first_token"])


async def _first(client: httpx2.AsyncClient, url: str, body: dict[str, Any]) -> float:
    """The time at which the first token of a stream arrives."""
    first = 0.0
    async with client.stream("POST", url, json={**body, "stream": True}) as answer:
        async for line in answer.aiter_lines():
            if (
                not first
                and line.startswith("data: {")
                and json.loads(line[6:])["choices"][0]["delta"].get("content")
            ):
                first = time.perf_counter()
    return first


async def by_turns(ways: dict[str, Any], asked: list[str], at_once: int) -> dict[str, list[float]]:
    """Seconds of each request. Blocks of `at_once` alternate, so that both ways see the same machine load."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for start in range(0, len(asked), at_once):
        names = list(ways) if (start // at_once) % 2 else list(ways)[::-1]
        for name in names:

            async def one(at: int, name: str = name) -> None:
                began = time.perf_counter()
                found = await ways[name](asked[at], at)
                seconds[name].append(found if isinstance(found, float) else time.perf_counter() - began)

            await asyncio.gather(*(one(at) for at in range(start, min(start + at_once, len(asked)))))
    return seconds


def told(seconds: dict[str, list[float]]) -> dict[str, float]:
    medians = {f"{name}_s": round(statistics.median(values), 4) for name, values in seconds.items()}
    hand, endpoint = (statistics.median(seconds[name]) for name in ("by_hand", "endpoint"))
    return {**medians, "ratio": round(endpoint / hand, 3), "requests": len(seconds["endpoint"])}


async def overhead(urls: dict[str, str], made: Prompters, count: int) -> dict[str, Any]:
    asked = problems(count)
    found: dict[str, Any] = {}
    async with serving(urls) as (url, _), httpx2.AsyncClient(timeout=None) as client:
        hand, endpoint = ByHand(made, urls, client), ByEndpoint(url, client)
        warm = {"by_hand": hand.whole, "endpoint": endpoint.whole}
        await by_turns(warm, asked[:16], 8)
        for at_once in (1, 8):
            found[f"whole_{at_once}_at_a_time"] = told(await by_turns(warm, asked, at_once))
        firsts = {"by_hand": hand.first_token_s, "endpoint": endpoint.first_token_s}
        found["first_token_of_stage_2"] = told(await by_turns(firsts, asked, 1))
    return found


@asynccontextmanager
async def faulty(
    urls: dict[str, str], share: float, stall_s: float
) -> AsyncIterator[dict[str, FaultyUpstream]]:
    """The same servers with faults: each fault hits that share of the upstream requests."""
    draws = random.Random(0)

    def fault() -> str:
        at = draws.random()
        return FAULTS[int(at / share)] if at < share * len(FAULTS) else ""

    async with httpx2.AsyncClient(timeout=None, limits=httpx2.Limits(max_connections=None)) as client:
        made = {
            stage: FaultyUpstream(model, forwarding(urls[stage], client), fault, stall_s)
            for stage, model in zip(("explorer", "synthesizer"), TINY_PAIR, strict=True)
        }
        for upstream in made.values():
            await upstream.start()
        try:
            yield made
        finally:
            for upstream in made.values():
                upstream.stop()


async def under_faults(urls: dict[str, str], count: int, at_once: int, stall_s: float) -> dict[str, Any]:
    texts = problems(count)
    async with faulty(urls, 0.1, stall_s) as upstreams:
        behind = {stage: upstream.url for stage, upstream in upstreams.items()}
        async with serving(behind, "--request_deadline_s", "5", "--max_concurrent_requests", "32") as (
            url,
            process,
        ):
            outcome, memory, seconds = await _ask_all(url, process, texts, at_once)
        met = Counter(seen.ended for one in upstreams.values() for seen in one.seen)
    quarter = len(memory) // 4 or 1
    return {
        "requests": len(texts),
        "at_once": at_once,
        "outcomes": dict(outcome),
        "requests_upstream": dict(met),
        "median_s": round(statistics.median(seconds), 2),
        "slowest_s": round(max(seconds), 2),
        "memory_mib_by_quarter": [
            round(statistics.median(memory[at : at + quarter])) for at in range(0, quarter * 4, quarter)
        ],
    }


async def _ask_all(
    url: str, process: psutil.Process, texts: list[str], at_once: int
) -> tuple[Counter[str], list[float], list[float]]:
    outcome, memory, seconds = Counter[str](), list[float](), list[float]()
    slots = asyncio.Semaphore(at_once)

    async def one(number: int, client: httpx2.AsyncClient) -> None:
        body = {"model": "a2r", "stream": number % 2 == 1, "seed": number, "max_tokens": MOST_TOKENS,
                "messages": [{"role": "user", "content": f"{texts[number]} (request {number})"}]}  # fmt: skip
        async with slots:
            began = time.perf_counter()
            answer = await client.post(f"{url}/chat/completions", json=body)
            seconds.append(time.perf_counter() - began)
        outcome[_outcome(answer, number)] += 1
        memory.append(process.memory_info().rss / 2**20)

    async with httpx2.AsyncClient(timeout=None, limits=httpx2.Limits(max_connections=None)) as client:
        await asyncio.gather(
            *(one(number, client) for number in range(min(32, len(texts))))
        )  # warm-up: loads what is loaded once
        for kept in (outcome, memory, seconds):
            kept.clear()
        await asyncio.gather(*(one(number, client) for number in range(len(texts))))
    return outcome, memory, seconds


def _outcome(answer: httpx2.Response, number: int) -> str:
    """Who answered, or the kind of error; `lost` and `crossed` must not occur."""
    text = answer.text
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.json()['error']['code']}"
    if text.startswith(("data:", ":")):
        rows = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        if "error" in rows[-1]:
            return f"in the stream: {rows[-1]['error']['code']}"
        if not text.endswith("data: [DONE]\n\n"):
            return "lost"
        said = "".join(choice["delta"].get("content") or "" for row in rows for choice in row["choices"])
        block = rows[-1]["a2r"]
    else:
        said, block = answer.json()["choices"][0]["message"]["content"], answer.json()["a2r"]
    marks = set(re.findall(r"\(request (\d+)\)|(CROSSED)", said))
    if marks != {(str(number), "")}:
        return "crossed" if marks else "unmarked"
    return f"answered by the {block['answered_by']}" + (", with a warning" if block["warnings"] else "")


async def measured(arguments: argparse.Namespace, children: list[Child]) -> dict[str, Any]:
    urls = {stage: child.url for child in children for stage in child.plan.serves}
    made = prompters(ServeConfig())
    found = await overhead(urls, made, arguments.problems)
    print(json.dumps(found), file=sys.stderr)
    found["faults"] = await under_faults(urls, arguments.requests, arguments.at_once, arguments.stall_s)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=200, help="for the overhead")
    parser.add_argument("--requests", type=int, default=500, help="under faults")
    parser.add_argument("--at_once", type=int, default=32)
    parser.add_argument("--stall_s", type=float, default=20.0)
    parser.add_argument("--output", default="", help="JSON file to write the figures to")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    with started(ServeConfig()) as children:
        found = asyncio.run(measured(arguments, children))
    text = json.dumps({"command": " ".join(["python", *sys.argv]), **found}, indent=1)
    if arguments.output:
        Path(arguments.output).write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
