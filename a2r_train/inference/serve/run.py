"""`a2r serve` from its keys to its end: the missing servers, the pair, the endpoint, the drain."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

import httpx2
import uvicorn

from a2r_train.data.task import explorer_prompt_of, prompt_of, within
from a2r_train.engines.openai import api_key, base_urls
from a2r_train.errors import InputError, RunError
from a2r_train.inference.adaptive import check_votes
from a2r_train.inference.price import Price
from a2r_train.inference.serve.app import Endpoint
from a2r_train.inference.serve.child import Child, started
from a2r_train.inference.serve.config import ServeConfig
from a2r_train.inference.serve.limits import endpoint_key
from a2r_train.inference.serve.pair import Pair, Stage
from a2r_train.inference.serve.turns import TurnPrompter
from a2r_train.inference.serve.upstream import Upstream
from a2r_train.models import known_context, load_tokenizer
from a2r_train.process import handling_signals
from a2r_train.verify import check_verifier

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
WATCH_S = 1.0
SWITCH_S = 0.0005  # a vote in a thread must not hold up the event loop, as Python's 5 ms would


@dataclass(frozen=True)
class Prompters:
    explorer: TurnPrompter
    synthesizer: TurnPrompter


def prompters(config: ServeConfig) -> Prompters:
    """The prompters of both stages, as the pair was trained: an explorer without a prompt gets the
    synthesizer's.

    Raises InputError for a wrong key, a model without a chat template, or a prompt that cannot be read.
    """
    config.check()
    check_verifier(config.verifier)
    if config.adaptive or config.skip_agreement:
        check_votes(config.verifier)
    second = prompt_of(config.synthesizer, config.prompt)
    first = explorer_prompt_of(config.explorer, second, bool(config.prompt))
    return Prompters(
        TurnPrompter(load_tokenizer(config.explorer), first),
        TurnPrompter(load_tokenizer(config.synthesizer), second),
    )


def serve(config: ServeConfig, prices: Mapping[str, Price]) -> int:
    """Serve until a signal; returns the exit status, 128 plus the signal's number.

    Raises InputError for a wrong key or for servers that do not serve the models, RunError if a server that
    it started does not come up or ends.
    """
    key = endpoint_key()
    made = prompters(config)
    sys.setswitchinterval(SWITCH_S)
    if config.host not in LOOPBACK and not key:
        log.warning("%s: anyone who can reach this address can send requests; set A2R_API_KEY", config.host)
    with started(config) as children:
        loop = uvicorn.Config("").get_loop_factory()  # uvloop's, if it is installed
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(_serve(config, made, prices, key, children))


async def _serve(
    config: ServeConfig, made: Prompters, prices: Mapping[str, Price], key: str, children: list[Child]
) -> int:
    own = {stage: child.url for child in children for stage in child.plan.serves}
    async with paired(config, made, prices, own) as pair:
        pair.warm()
        return await _listen(config, Endpoint(config, pair, key), children)


@asynccontextmanager
async def paired(
    config: ServeConfig, made: Prompters, prices: Mapping[str, Price], own: Mapping[str, str]
) -> AsyncIterator[Pair]:
    """The pair with its connections; `own` has the URLs of the stages whose servers were started here.

    Raises InputError for a stage that none of its servers serves.
    """
    keyed = {"authorization": f"Bearer {api_key()}"} if api_key() else {}
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=config.max_concurrent_requests)
    async with httpx2.AsyncClient(headers=keyed, limits=limits, timeout=None) as client:

        async def stage(name: str, prompter: TurnPrompter) -> Stage:
            model = getattr(config, name)
            urls = [own[name]] if name in own else base_urls(getattr(config, f"{name}_url"))
            served_as = getattr(config, f"{name}_served_as") or model
            upstream = Upstream(served_as, urls, client, config.tries, config.request_deadline_s)
            if fault := await upstream.fault():
                raise InputError(f"{name}_url: {fault}")
            context = await upstream.context() or known_context(model)
            if name == "synthesizer":
                shorter = within(prompter.config, context - config.max_completion_tokens)
                prompter = TurnPrompter(prompter.tokenizer, shorter)
            return Stage(model, upstream, prompter, context, prompter.stop_ids())

        explorer = await stage("explorer", made.explorer)
        pair = Pair(config, explorer, await stage("synthesizer", made.synthesizer), prices)
        try:
            yield pair
        finally:
            pair.close()


class _Server(uvicorn.Server):
    """uvicorn, with signals handled by `_listen`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _listen(config: ServeConfig, endpoint: Endpoint, children: list[Child]) -> int:
    server = _Server(
        uvicorn.Config(
            endpoint.app(),
            host=config.host,
            port=config.port,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=max(1, round(config.drain_s)),
        )
    )
    ended_by = 0

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal ended_by
        server.force_exit = server.should_exit  # the second signal does not wait
        server.should_exit, ended_by = True, number

    with handling_signals(stop):
        telling = asyncio.create_task(_tell(server, config))
        watching = asyncio.create_task(_watch(server, children))
        try:
            with suppress(SystemExit):  # uvicorn raises it if the port is taken
                await server.serve()
        finally:
            telling.cancel()
            fault = watching.result() if watching.done() else ""
            watching.cancel()
    if fault:
        raise RunError(fault)
    if not server.started:
        raise InputError(f"{config.host}:{config.port}: cannot listen there; choose another --port or --host")
    waited = f"requests under way had up to {config.drain_s:g} s to end"
    log.info("stopped; %s", "the second signal ended the requests under way" if server.force_exit else waited)
    return 128 + ended_by


async def _tell(server: uvicorn.Server, config: ServeConfig) -> None:
    """Log the address once the server listens."""
    while not server.started:
        await asyncio.sleep(0.02)
    host = f"[{config.host}]" if ":" in config.host else config.host
    port = server.servers[0].sockets[0].getsockname()[1]
    log.info("%s serves %s with %s at http://%s:%d/v1", config.name, config.explorer, config.synthesizer,
             host, port)  # fmt: skip


async def _watch(server: uvicorn.Server, children: list[Child]) -> str:
    """Stop serving when a server started here ends; returns how it ended."""
    while True:
        for child in children:
            if fault := child.fault():
                server.should_exit = True
                return fault
        await asyncio.sleep(WATCH_S)
