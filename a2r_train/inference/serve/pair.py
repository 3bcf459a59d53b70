"""The two stages of one request: references, their votes, a synthesis, and what happens if one fails."""

from __future__ import annotations

import asyncio
import secrets
import threading
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar

from a2r_train.engines import Sampling
from a2r_train.engines.openai import chat_keys, decoding_keys, sampling_keys, with_thinking
from a2r_train.errors import InputError
from a2r_train.inference.adaptive import Adaptive
from a2r_train.inference.price import Price, no_tokens
from a2r_train.inference.serve.config import ServeConfig
from a2r_train.inference.serve.errors import UpstreamError, invalid
from a2r_train.inference.serve.request import Ask
from a2r_train.inference.serve.sent import Sent
from a2r_train.inference.serve.turns import TurnPrompter
from a2r_train.inference.serve.upstream import Piece, Upstream, Usage
from a2r_train.inference.serve.usage import Report
from a2r_train.inference.work import AGREEMENT, Work
from a2r_train.prompts import Chat, visible
from a2r_train.records import Reference, seed_of
from a2r_train.verify import majority, traits_of
from a2r_train.verify.pool import WORKERS

# If nobody reads the stream, vLLM sends this many tokens at a time; other servers do not know the key.
SELDOM = {"stream_interval": 64}

SHORT = 10_000  # characters; tokenizing them takes about a millisecond

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Arrived:
    """A reference has arrived; `at` is its place in the order asked, in which the synthesizer reads them."""

    at: int
    reference: Reference


Event = Arrived | Piece
Emit = Callable[[Event], None]


@dataclass
class Stage:
    """A model with the prompter for its tokenizer; `context` is the most tokens it can read and write, and
    `stops` are the tokens that end its turn.
    """

    model: str
    upstream: Upstream
    prompter: TurnPrompter
    context: int
    stops: list[int]


@dataclass
class _Run:
    """One request under way; `deadline` is in the time of the event loop. `places` are those of the
    references in the order asked, as they may finish in another. `prompt_tokens` are those of a stage's
    prompt by our own count, and `uncounted` texts of stage 2, for servers that count no tokens.
    """

    ask: Ask
    path: str
    emit: Emit
    deadline: float
    explorer: TurnPrompter
    synthesizer: TurnPrompter
    work: Work
    report: Report
    adaptive: Adaptive | None
    places: list[int] = field(default_factory=list)
    votes: asyncio.Future[list[list[int]]] | None = None
    prompt_tokens: dict[str, int] = field(default_factory=no_tokens)
    uncounted: list[str] = field(default_factory=list)


class Pair:
    """Explorer and synthesizer, each behind its servers. One object answers all requests."""

    def __init__(
        self, config: ServeConfig, explorer: Stage, synthesizer: Stage, prices: Mapping[str, Price]
    ) -> None:
        self.config, self.explorer, self.synthesizer, self.prices = config, explorer, synthesizer, prices
        self._rendering = ThreadPoolExecutor(1)
        self._tokenizing = threading.Lock()  # a tokenizer is used by one thread at a time
        self._voting = ThreadPoolExecutor(WORKERS)

    async def answer(self, ask: Ask, path: str, deadline: float, emit: Emit) -> Report:
        """Answer one request; references and pieces of syntheses are emitted as they come.

        Raises ApiError if there is no answer at all, or if the request does not fit the models.
        """
        run, sent = self._begin(ask, path, deadline, emit), Sent(ask.n, ask.stream)
        try:
            await self._explore(run)
            explored = asyncio.get_running_loop().time()
            if not await self._skips(run):
                await self._synthesise(run, sent)
            run.report.groups = await self._vote(run)
            await self._end(run, sent)
        finally:
            if run.votes:
                run.votes.cancel()
        await self._count_where_nobody_did(run)
        run.report.seconds["synthesise"] = asyncio.get_running_loop().time() - explored
        run.report.price(self.prices, self.explorer.model, self.synthesizer.model)
        return run.report

    def warm(self) -> None:
        """Start the processes that compare answers, which takes seconds, before a vote needs them."""
        self._voting.submit(majority, ["x + 1", "1 + x"], self.config.verifier)

    def close(self) -> None:
        self._rendering.shutdown(wait=False, cancel_futures=True)
        self._voting.shutdown(wait=False, cancel_futures=True)

    def _begin(self, ask: Ask, path: str, deadline: float, emit: Emit) -> _Run:
        if ask.max_tokens and ask.max_tokens >= self.synthesizer.context:
            raise _too_long("max_tokens", f"{ask.max_tokens}", self.synthesizer.context)
        seed = ask.seed if ask.seed is not None else secrets.randbits(31)
        first, second = self.explorer.prompter, self.synthesizer.prompter
        work = Work(ask.problem, self.config.verifier, second.config, first.config)
        adaptive = self.config.adaptive_for(ask.k)
        return _Run(ask, path, emit, deadline, first, second, work, Report(ask.k, seed, work), adaptive)

    # Stage 1

    async def _explore(self, run: _Run) -> None:
        """Sample the references; if a call fails or time is up, continue with those that have arrived."""
        loop = asyncio.get_running_loop()
        began, error = loop.time(), None
        until = min(began + self.config.explore_deadline_s, run.deadline)
        try:
            async with asyncio.timeout_at(until):
                chat, room = await self._rendered(self._explorer_chat, run, _length(run.ask))
                for size in run.adaptive.sizes(run.ask.k) if run.adaptive else [run.ask.k]:
                    await self._sample(run, chat, room, size)
                    if run.adaptive and await self._stops(run, run.adaptive):
                        break
        except TimeoutError:
            error = UpstreamError("timeout", f"not done within {until - began:.0f} s")
        except UpstreamError as failed:
            error = failed
        run.report.seconds["explore"] = loop.time() - began
        if error and not run.work.references:
            raise error.as_api_error("explorer")
        if error:
            there = f"{len(run.work.references)} of {run.ask.k} references"
            run.report.warnings.append(f"explorer: {there} ({error})")

    async def _stops(self, run: _Run, adaptive: Adaptive) -> bool:
        return await self._voted(adaptive.stops, run.work.answers, run.work.verifier)

    async def _skips(self, run: _Run) -> bool:
        return await self._voted(run.work.skips, run.adaptive) if run.adaptive else False

    def _explorer_chat(self, run: _Run) -> tuple[Chat, int]:
        """The chat, and how many tokens each reference may have."""
        run.explorer = run.explorer.after(run.ask.system, run.ask.earlier)
        run.synthesizer = run.synthesizer.after(run.ask.system, run.ask.earlier)
        chat = run.explorer.explorer(run.ask.problem)
        prompt = run.prompt_tokens["explorer_prompt"] = len(run.explorer.token_ids(chat))
        room = self.explorer.context - prompt
        if room < 1:
            raise _too_long("messages", f"{prompt} tokens", self.explorer.context)
        return chat, min(room, self.config.max_reference_completion_tokens)

    async def _sample(self, run: _Run, chat: Chat, room: int, size: int) -> None:
        """`size` more references in one call; further calls replace the ones that a call did not return. Only
        failed calls count as tries, as some servers return one completion whatever `n` is.
        """
        home, wanted = self.explorer.upstream.home(), len(run.work.references) + size
        sampling = Sampling(run.ask.explore_temperature, max_completion_tokens=room)
        failed = 0
        while (there := len(run.work.references)) < wanted:
            free = [place for place in range(wanted) if place not in run.places]
            shares = _shares(run.ask.explore_temperature, free)
            seed = seed_of(run.report.seed, "explore", there)
            body = {
                **chat_keys(run.explorer, chat),
                **sampling_keys(sampling, self.explorer.stops),
                **decoding_keys(self.explorer.prompter),
                **SELDOM,
                "n": len(shares),
                "seed": seed,
            }
            try:
                await self._sample_once(run, home + failed, body, shares)
                if len(run.work.references) == there:
                    raise UpstreamError("broken", f"{self.explorer.model}: no text in any completion")
            except UpstreamError as error:
                if len(run.work.references) >= wanted:
                    return
                await self.explorer.upstream.wait(error, failed)
                failed += 1

    async def _sample_once(
        self, run: _Run, server: int, body: dict[str, Any], shares: Sequence[Sequence[int]]
    ) -> None:
        """One call, of whose completions each is the reference in some free places. Each counts once it is
        complete, whatever happens to the others.
        """
        texts: dict[int, list[Piece]] = {}
        counted, new = Usage(), list[Reference]()
        pieces = self.explorer.upstream.pieces(server, body, run.path)
        try:
            async for piece in pieces:
                if isinstance(piece, Usage):
                    counted = piece
                    continue
                texts.setdefault(piece.index, []).append(piece)
                if piece.finish_reason and 0 <= piece.index < len(shares):
                    await self._arrive(run, texts.pop(piece.index), shares[piece.index], new)
        finally:
            await pieces.aclose()
            read = counted.prompt_tokens or (run.prompt_tokens["explorer_prompt"] if new else 0)
            run.work.tokens["explorer_prompt"] += read
            if counted.completion_tokens is None:  # the server reports no count, or broke off
                written = sum(run.explorer.count(reference.text) + 1 for reference in new)
                run.work.tokens["references"] += written
            else:
                run.work.tokens["references"] += counted.completion_tokens

    async def _arrive(
        self, run: _Run, parts: list[Piece], places: Sequence[int], new: list[Reference]
    ) -> None:
        """Add a completion as the reference in those places, and to the new ones, unless it is empty.

        It is read in a thread, which goes on where a deadline ends the wait. So the thread changes nothing.
        """
        thinking, text = "".join(part.thinking for part in parts), "".join(part.text for part in parts)
        said = _said(self.explorer.prompter, thinking, text)
        if not said.strip():
            return

        def read(run: _Run) -> Reference:
            tokens = run.explorer.count(said) + 1 if run.ask.references else 0  # and the end of the turn
            return run.work.reference(run.explorer.complete(said), tokens)

        reference = await self._rendered(read, run, len(said))
        new.append(reference)
        for place in places:
            at = bisect(run.places, place)
            run.places.insert(at, place)
            run.work.references.insert(at, reference)
            run.emit(Arrived(place, reference))

    # Stage 2

    async def _synthesise(self, run: _Run, sent: Sent) -> None:
        """Write the syntheses; what fails leaves some of them open."""
        try:
            async with asyncio.timeout_at(run.deadline):
                await self._write(run, sent)
        except TimeoutError:
            error = UpstreamError("timeout", f"not done within {self.config.deadline_s:g} s")
        except UpstreamError as failed:
            if failed.kind in ("refused", "loop"):
                raise failed.as_api_error("synthesizer") from None
            error = failed
        else:
            return
        if open_ := sent.open():  # the others are whole, whatever came after them
            which = f"no answer of choice {', '.join(map(str, open_))}" if run.ask.n > 1 else "no answer"
            run.report.warnings.append(f"synthesizer: {which}, so the vote answered ({error})")

    def _vote(self, run: _Run) -> asyncio.Future[list[list[int]]]:
        """The groups of the vote, which starts when they are first asked for."""
        if run.votes is None:
            run.votes = asyncio.ensure_future(self._voted(run.work.groups))
        return run.votes

    async def _write(self, run: _Run, sent: Sent) -> None:
        """Write the syntheses; further calls write those that a call left out, as some servers return one
        completion whatever `n` is.
        """
        began = asyncio.get_running_loop().time()
        length = _length(run.ask) + sum(len(reference.text) for reference in run.work.references)
        body = await self._rendered(self._synthesis_body, run, length)
        while open_ := sent.open():
            seed = seed_of(run.report.seed, "synthesis", run.ask.n - len(open_))
            shares = _shares(run.ask.temperature, open_)
            await self._write_some(run, sent, shares, {**body, "n": len(shares), "seed": seed}, began)
            if sent.open() == open_:
                raise UpstreamError("broken", f"{self.synthesizer.model}: none of the completions asked for")

    async def _write_some(
        self, run: _Run, sent: Sent, shares: Sequence[Sequence[int]], body: dict[str, Any], began: float
    ) -> None:
        """One call, of whose completions each is the synthesis in some places, tried again where it fails
        before their end.
        """
        loop, upstream, tokens = asyncio.get_running_loop(), self.synthesizer.upstream, run.work.tokens
        home = upstream.home()
        for number in range(upstream.tries):
            sent.again(place for share in shares for place in share)
            pieces, counted = upstream.pieces(home + number, body, run.path), Usage()
            heard: dict[int, list[str]] = {}
            try:
                async for piece in pieces:
                    if isinstance(piece, Usage):
                        counted = piece  # some servers send the counts so far with every part
                        continue
                    run.report.seconds.setdefault("first_token", loop.time() - began)
                    heard.setdefault(piece.index, []).append(piece.thinking + piece.text)
                    for place in shares[piece.index] if 0 <= piece.index < len(shares) else ():
                        if new := sent.take(replace(piece, index=place)):
                            run.emit(new)
                    self._vote(run)  # runs next to the synthesis, whose first token does not wait for it
                return
            except UpstreamError as error:
                if not sent.open():
                    return
                await upstream.wait(error, number)
            finally:
                await pieces.aclose()
                read = counted.prompt_tokens or (run.prompt_tokens["synthesizer_prompt"] if heard else 0)
                tokens["synthesizer_prompt"] += read
                tokens["synthesis"] += counted.completion_tokens or 0
                if counted.completion_tokens is None:  # the server reports no count, or broke off
                    run.uncounted += ["".join(parts) for parts in heard.values()]

    async def _count_where_nobody_did(self, run: _Run) -> None:
        texts = run.uncounted
        if texts:
            run.work.tokens["synthesis"] += await self._rendered(
                lambda run: sum(run.synthesizer.count(text) + 1 for text in texts), run, sum(map(len, texts))
            )

    def _synthesis_body(self, run: _Run) -> dict[str, Any]:
        ask = run.ask
        try:
            rendered = run.synthesizer.synthesizer(ask.problem, run.work.references)
        except InputError as error:
            raise invalid("messages", str(error), "context_length_exceeded") from None
        run.prompt_tokens["synthesizer_prompt"] = rendered.prompt_tokens
        room = self.synthesizer.context - rendered.prompt_tokens
        if room < 1:
            raise _too_long("messages", f"{rendered.prompt_tokens} tokens", self.synthesizer.context)
        if ask.max_tokens and ask.max_tokens > room:
            says = f"{ask.max_tokens} beside a prompt of {rendered.prompt_tokens}"
            raise _too_long("max_tokens", says, self.synthesizer.context)
        longest = ask.max_tokens or min(room, self.config.max_completion_tokens)
        sampling = Sampling(ask.temperature, ask.top_p, max_completion_tokens=longest)
        body = {
            **chat_keys(run.synthesizer, rendered.chat),
            **sampling_keys(sampling, self.synthesizer.stops),
            **({} if ask.stream else SELDOM),
        }
        return {**body, "stop": list(ask.stop)} if ask.stop else body

    # The end: syntheses that can be read, and the vote in place of the others

    async def _end(self, run: _Run, sent: Sent) -> None:
        """Emit the end of each choice: of its synthesis, or of the vote in its place."""
        groups = run.report.groups
        written = [sent.written(index) for index in range(run.ask.n)]
        length = sum(len(piece.thinking) + len(piece.text) for piece in written if piece)
        made = await self._rendered(lambda run: self._read(run, written), run, length)
        vote = run.work.references[run.work.best(groups)]
        settled: Sequence[Reference] = [vote] * run.ask.n
        if run.work.answered_by != AGREEMENT:
            settled = await self._voted(run.work.settle, made, groups)
        text, reason = "", ""
        if any(one is vote for one in settled):
            text, reason = await self._rendered(lambda run: self._cut(run, vote), run, len(vote.text))
        for index, (piece, answer) in enumerate(zip(written, settled, strict=True)):
            if answer is vote:
                before = "\n\n" if sent.began(index) else ""
                run.emit(Piece(index, text=before + text, finish_reason=reason))
            elif piece:
                run.emit(replace(piece, thinking="", text="") if run.ask.stream else piece)
        if unread := {at: piece for at, piece in enumerate(written) if piece and settled[at] is vote}:
            run.report.warnings.append(_unreadable(unread, run.ask.n))

    def _read(self, run: _Run, written: Sequence[Piece | None]) -> list[Reference | None]:
        """The syntheses with their answers; None for one that has no end."""
        prompter = self.synthesizer.prompter
        return [
            run.work.synthesis(prompter.complete(_said(prompter, piece.thinking, piece.text)))
            if piece
            else None
            for piece in written
        ]

    def _cut(self, run: _Run, answer: Reference) -> tuple[str, str]:
        """The text of a reference cut at `stop` and `max_tokens`, and its finish reason. If that cuts its
        answer off, the answer alone, if it fits.
        """

        def cut(text: str) -> tuple[str, str]:
            at = min((at for stop in run.ask.stop if (at := text.find(stop)) >= 0), default=len(text))
            return run.synthesizer.first_tokens(text[:at], run.ask.max_tokens or len(text) + 1)

        whole, alone = visible(answer.text), _stated(answer.answer, run.work.verifier)
        text, reason = cut(whole or alone)
        lost = text != whole and answer.answer and run.work.reference(text).answer != answer.answer
        return (alone, "stop") if lost and cut(alone)[0] == alone else (text, reason)

    async def _rendered(self, function: Callable[[_Run], T], run: _Run, length: int) -> T:
        """Run a function that needs a tokenizer: directly for a short text, otherwise in a thread; `length`
        in characters.
        """
        if length < SHORT and self._tokenizing.acquire(blocking=False):
            try:
                return function(run)
            finally:
                self._tokenizing.release()

        def alone() -> T:
            with self._tokenizing:
                return function(run)

        return await asyncio.get_running_loop().run_in_executor(self._rendering, alone)

    async def _voted(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a thread that may wait for verifiers."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._voting, lambda: function(*args, **kwargs))


def _shares(temperature: float, places: Sequence[int]) -> list[Sequence[int]]:
    """The places that each completion of a call takes: one, or all of them at temperature 0, where all
    completions are equal and vLLM refuses to write more than one.
    """
    return [[place] for place in places] if temperature > 0 else [places]


def _said(prompter: TurnPrompter, thinking: str, text: str) -> str:
    """A completion as the model wrote it. The prompter is the stage's own, which looks its special tokens up
    once for all requests.
    """
    return prompter.decoded(with_thinking(thinking, text, prompter.opens_thinking))


def _stated(answer: str, verifier: str) -> str:
    """An answer where its verifier looks for it; "" for none, and for a program, which is its own text."""
    place = traits_of(verifier).answer_in
    if not answer or place == "code":
        return ""
    return f"<answer>{answer}</answer>" if place == "tags" else rf"\boxed{{{answer}}}"


def _unreadable(pieces: Mapping[int, Piece], n: int) -> str:
    """The warning about syntheses, by their places, of which no answer can be read."""
    which = f"the answer of choice {', '.join(map(str, pieces))}" if n > 1 else "its answer"
    cut = any(piece.finish_reason == "length" for piece in pieces.values())
    why = " (cut at the token limit)" if cut else ""
    return f"synthesizer: {which} cannot be read{why}, so the vote answered"


def _length(ask: Ask) -> int:
    return len(ask.problem) + len(ask.system) + sum(len(turn.content) for turn in ask.earlier)


def _too_long(param: str, what: str, context: int) -> Exception:
    return invalid(param, f"{what}, but the context has {context} tokens", "context_length_exceeded")
