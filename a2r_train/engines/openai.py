"""The engine for any OpenAI-compatible server, such as `vllm serve`: chat completions over one or several
base URLs.

A request is a function of its chat, sampling and seed, so it may be repeated: on 429, 5xx, a lost connection,
a broken answer or a missed deadline it is tried again, with exponential backoff and full jitter, at the next
endpoint. The key comes from OPENAI_API_KEY alone, and is masked in every server message.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from a2r_train.engines.base import FAILED, Completion, Engine, EngineArguments, Sampling, token_ids_of
from a2r_train.errors import InputError
from a2r_train.markers import THINK_CLOSE, THINK_OPEN
from a2r_train.models import count_parameters, known_context, load_tokenizer
from a2r_train.prompts import Chat, Prompter, visible

log = logging.getLogger(__name__)

TRIES = 10  # with the waits below about a minute, more if the server names a longer wait
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
PREFLIGHT_S = 10.0
REFUSED = (400, 413, 422)  # the prompt is too long, or its content is not wanted
AGAIN = (408, 409, 425, 429)
# Chat, body and deadline of a request that a running server answers, even if one request of ours keeps
# failing. With our sampling as its body, it is answered if the server refused one prompt, not all requests.
PROBE: tuple[Chat, dict[str, Any], float] = (
    Chat([{"role": "user", "content": "1"}]),
    {"max_tokens": 1},
    60.0,
)


class _Again(Exception):
    """A failed attempt that may succeed if repeated; `wait_s` is the wait that the server asks for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class OpenAIEngine(Engine):
    """One model behind the endpoints that serve it (comma-separated base URLs, such as
    `http://localhost:8000/v1`).

    `max_concurrent_requests` is the bound of each endpoint, `request_deadline_s` that of one try, and of the
    wait that a server asks for. The samples of one chat go to one endpoint, to use its prefix cache. A
    refused prompt has finish_reason `refused`. A request whose attempts all failed has `failed`, if the
    server then answers a probe. If not `seeded`, requests have no seed. A completion ends where the context
    does, as in the other engines: servers refuse a request for more tokens than that leaves.

    Raises InputError if no endpoint answers, serves the model or accepts the key, and if the sampling is
    refused whatever the prompt.
    """

    def __init__(
        self,
        model: str,
        arguments: EngineArguments,
    ) -> None:
        self.name, self.seeded = model, arguments.seeded
        self.tokenizer = load_tokenizer(model)
        self.parameters = count_parameters(model)
        self.max_concurrent_requests = arguments.max_concurrent_requests
        self.request_deadline_s = arguments.request_deadline_s
        self._key = api_key()
        self._headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._prompter = Prompter(self.tokenizer)
        self._stops = self._prompter.stop_ids()
        self._compared = False
        self._probed: set[Sampling] = set()
        self._last = {"refused": "by its content", FAILED: ""}
        self._contexts: list[int] = []
        self._hides_thoughts = False
        self.urls = self._serving(base_urls(arguments.endpoint))
        self.context = min(self._contexts)

    def generate(self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        rooms = [self.context - len(prompt) for prompt in token_ids_of(self._prompter, chats)]
        most = [max(1, min(sampling.max_completion_tokens, room)) for room in rooms]
        found = _finished(self._all(chats, sampling, seeds, most))
        for reason in ("refused", FAILED):
            if count := sum(c.finish_reason == reason for c in found):
                log.warning(
                    "%s: %d of %d requests %s (the last: %s)",
                    self.name,
                    count,
                    len(found),
                    reason,
                    self._last[reason],
                )
        self._warn_hidden_thoughts(found)
        return found

    def _warn_hidden_thoughts(self, found: Sequence[Completion]) -> None:
        """Once, where the chat template opens a thought that no whole answer closes: all would be read as
        thoughts, and so have no answer.
        """
        whole = [c.text for c in found if c.finish_reason == "stop" and c.text.strip()]
        if self._hides_thoughts or not whole or not self._prompter.opens_thinking:
            return
        self._hides_thoughts = not any(visible(self._prompter.complete(text)).strip() for text in whole)
        if self._hides_thoughts:
            log.warning(
                "%s: its chat template opens a thought that no answer of the server closes, so none can be "
                "read; let the server return the thoughts, or set chat_template_kwargs: "
                "{enable_thinking: false}",
                self.name,
            )

    def next_tokens(self, prompts: Sequence[list[int]]) -> list[dict[str, float]]:
        """Empty: the chat protocol cannot continue in the middle of an answer."""
        return [{} for _ in prompts]

    async def _all(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int], most: Sequence[int]
    ) -> list[Completion]:
        """A completion of each chat, of at most so many tokens."""
        slots = {url: asyncio.Semaphore(self.max_concurrent_requests) for url in self.urls}
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(headers=self._headers, timeout=None, limits=limits) as client:

            async def one(chat: Chat, seed: int, home: int, tokens: int) -> Completion:
                cut = replace(sampling, max_completion_tokens=tokens)
                body = {
                    **sampling_keys(cut, self._stops),
                    **decoding_keys(self._prompter),
                    **({"seed": seed} if self.seeded else {}),
                }
                found = await self._ask(client, slots, home, chat, body, self.request_deadline_s)
                if isinstance(found, Completion):
                    if found.finish_reason == "refused" and sampling not in self._probed:
                        self._probed.add(sampling)
                        await self._check_sampling(client, slots, home, body)
                    return found
                if isinstance(down := await self._ask(client, slots, home, *PROBE), str):
                    raise InputError(f"{down}; start the server, and run the same command again")
                self._last[FAILED] = found
                return Completion("", 0, 0, FAILED)

            homes: dict[str, int] = {}
            places = [homes.setdefault(str(chat), len(homes)) for chat in chats]
            return await asyncio.gather(*map(one, chats, seeds, places, most))

    async def _check_sampling(
        self, client: httpx2.AsyncClient, slots: dict[str, asyncio.Semaphore], home: int, body: dict[str, Any]
    ) -> None:
        """Raise InputError if even the shortest prompt is refused: then the request is at fault, such as an
        unknown key.
        """
        found = await self._ask(client, slots, home, PROBE[0], body, self.request_deadline_s)
        if isinstance(found, Completion) and found.finish_reason == "refused":
            url, asked = self.urls[home % len(self.urls)], ", ".join(body)
            raise InputError(f"{url}: refuses every request ({self._last['refused']}); asked with {asked}")

    async def _ask(
        self,
        client: httpx2.AsyncClient,
        slots: dict[str, asyncio.Semaphore],
        home: int,
        chat: Chat,
        body: dict[str, Any],
        deadline_s: float,
    ) -> Completion | str:
        """The completion, or the reason why the last attempt failed.

        The endpoint at index `home` is tried first, then the next.
        """
        reason = ""
        for number in range(TRIES):
            url = self.urls[(home + number) % len(self.urls)]
            asked = 0.0
            try:
                async with slots[url], asyncio.timeout(deadline_s):
                    given = {"model": self.name, **chat_keys(self._prompter, chat), **body}
                    return self._completion(
                        url, chat, await client.post(f"{url}/chat/completions", json=given)
                    )
            except _Again as error:
                reason, asked = str(error), min(error.wait_s, deadline_s)  # a server may say a day
            except TimeoutError:
                reason = f"nothing in {deadline_s:g} s"
            except httpx2.RequestError as error:
                reason = self._clean(str(error)) or type(error).__name__
            log.debug("%s: try %d: %s", url, number + 1, reason)
            if number + 1 < TRIES:
                await asyncio.sleep(asked + random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**number)))
        return f"{url}: no answer in {TRIES} tries ({reason})"

    def _completion(self, url: str, chat: Chat, response: httpx2.Response) -> Completion:
        """The completion of a response. Raises _Again if another try may help, InputError if none will."""
        status = response.status_code
        if status in AGAIN or status >= 500:
            raise _Again(f"status {status}: {self._words(response)}", retry_after_s(response))
        if status in REFUSED:
            self._last["refused"] = self._words(response)
            return Completion("", len(self._prompter.token_ids(chat)), 0, "refused")
        if status != 200:
            raise InputError(f"{url}: status {status}: {self._words(response)}")
        try:
            content = response.json()
            choice = content["choices"][0]
            usage = content.get("usage") or self._counted(chat, choice)
            reason = (
                "refused" if choice["finish_reason"] == "content_filter" else str(choice["finish_reason"])
            )
            text = self._text(chat, choice["message"])
            found = Completion(text, int(usage["prompt_tokens"]), int(usage["completion_tokens"]), reason)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _Again(f"a broken answer ({type(error).__name__})") from None
        self._compare(url, chat, found)
        return found

    def _text(self, chat: Chat, message: dict[str, Any]) -> str:
        """The completion as the model wrote it, even if the server split off the thinking. Whether its prompt
        opened that may depend on the arguments of the chat's template.
        """
        thinking, text = parted(message)
        opened = bool(thinking) and self._prompter.opens(self._prompter.text(chat))
        return self._prompter.decoded(with_thinking(thinking, text, opened))

    def _counted(self, chat: Chat, choice: dict[str, Any]) -> dict[str, int]:
        """Token counts by the model's own tokenizer, for a server that returns none."""
        text = self._text(chat, choice["message"])
        prompt = len(self._prompter.token_ids(chat))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._prompter.count(text) + 1,
        }  # and the end of the turn

    def _compare(self, url: str, chat: Chat, found: Completion) -> None:
        if not self._compared and (ours := len(self._prompter.token_ids(chat))) != found.prompt_tokens:
            log.warning(
                "%s: counts %d prompt tokens where %s has %d: "
                "the server's chat template differs from the tokenizer's",
                url,
                found.prompt_tokens,
                self.name,
                ours,
            )
        self._compared = True

    def _serving(self, urls: list[str]) -> list[str]:
        """The endpoints that serve the model. Raises InputError if there is none."""
        said: dict[str, str] = {}
        serving = []
        for url in urls:
            try:
                response = httpx2.get(f"{url}/models", headers=self._headers, timeout=PREFLIGHT_S)
                response.raise_for_status()
                rows = {str(row["id"]): row.get("max_model_len") for row in response.json()["data"]}
            except httpx2.HTTPStatusError as error:
                hint = "; set OPENAI_API_KEY" if error.response.status_code in (401, 403) else _hint(url)
                said[url] = f"status {error.response.status_code}: {self._words(error.response)}{hint}"
            except (httpx2.RequestError, ValueError, KeyError, TypeError, AttributeError) as error:
                reason = self._clean(str(error)) or type(error).__name__
                said[url] = f"no server answers /models ({reason}){_hint(url)}"
            else:
                if self.name in rows:
                    serving.append(url)
                    told = rows[self.name]  # by vLLM
                    self._contexts.append(told if isinstance(told, int) else known_context(self.name))
                else:
                    said[url] = f"serves {', '.join(rows)}, not {self.name}"
        for url, words in said.items() if serving else ():
            log.warning("%s: %s; left out", url, words)
        if not serving:
            raise InputError("; ".join(f"{url}: {words}" for url, words in said.items()))
        return serving

    def _words(self, response: httpx2.Response) -> str:
        return words_of(response, self._key)

    def _clean(self, text: str) -> str:
        return on_one_line(text, self._key)


def words_of(response: httpx2.Response, key: str) -> str:
    """A server's message on one line, cut to 200 characters, without the key."""
    found = re.search(r'"message"\s*:\s*"((?:[^"\\]|\\.)*)"', response.text)
    return on_one_line(found[1] if found else response.text, key) or response.reason_phrase


def on_one_line(text: str, key: str) -> str:
    """200 characters of a text, with the key masked."""
    text = text.replace(key, "***") if key else text
    return " ".join(text.split())[:200]


def _hint(url: str) -> str:
    """A hint at the most frequent mistake in a base URL without an API."""
    return "" if url.endswith("/v1") else f"; is it {url}/v1?"


def _finished(work: Coroutine[Any, Any, list[Completion]]) -> list[Completion]:
    """`asyncio.run`; in a thread of its own if a loop is already running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    cancel: list[Callable[[], object]] = []

    async def cancellable() -> list[Completion]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        cancel.append(lambda: task and loop.call_soon_threadsafe(task.cancel))
        return await work

    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(asyncio.run, cancellable())
        try:
            return found.result()
        finally:  # on Ctrl-C, no request is left running
            if cancel and not found.done():
                cancel[0]()


def parted(message: dict[str, Any]) -> tuple[str, str]:
    """The thinking and the text of a message, or of a part of one that is streamed.

    Raises TypeError for a content that is neither text nor parts.
    """
    content = message.get("content")
    text = _joined(content, ("text", "output_text"))
    thinking = message.get("reasoning_content") or message.get("reasoning") or ""
    thinking = _joined(thinking, ("text", "thinking"))
    thinking = thinking or (_joined(content, ("thinking", "reasoning")) if isinstance(content, list) else "")
    return thinking, text


def with_thinking(thinking: str, text: str, opened: bool) -> str:
    """A completion as the model wrote it; `opened` if the chat template opens the thinking."""
    if not thinking:
        return text
    before = "" if opened else THINK_OPEN
    return f"{before}{thinking}{THINK_CLOSE}{text}" if text else f"{before}{thinking}"


def _joined(content: Any, kinds: tuple[str, ...]) -> str:
    """A message's content; of a list of parts, as some servers return it, those kinds are taken."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError("content is neither text nor parts")
    found = ""
    for part in content:
        if isinstance(part, str) and "text" in kinds:
            found += part
        elif isinstance(part, dict) and part.get("type", "text") in kinds:
            value = next(
                (part[key] for key in ("text", "thinking", "reasoning", "content") if part.get(key)), ""
            )
            found += _joined(value, (*kinds, "text")) if isinstance(value, list) else str(value)
    return found


def base_urls(endpoint: str) -> list[str]:
    """The base URLs of the comma-separated `endpoint`.

    Raises InputError for anything else, and for a URL with a password or a query.
    """
    urls = [url.strip().rstrip("/") for url in endpoint.split(",") if url.strip()]
    for url in urls:
        if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", url) or urls.count(url) > 1:
            urls = []
    if not urls:
        raise InputError(
            "endpoint: expected distinct base URLs such as http://localhost:8000/v1, comma-separated and "
            "without a key"
        )
    return urls


def api_key() -> str:
    """OPENAI_API_KEY, or "". Raises InputError, without the key, for one that a header cannot hold."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and (key.isprintable() and " " not in key)):
        raise InputError("OPENAI_API_KEY: contains a space or a character that no key has; set it again")
    return key


def chat_keys(prompter: Prompter, chat: Chat) -> dict[str, Any]:
    """The request's messages, and what the chat template is rendered with, such as the date that it shows."""
    arguments = prompter.template_arguments(chat)
    return {"messages": list(chat), **({"chat_template_kwargs": arguments} if arguments else {})}


def sampling_keys(sampling: Sampling, stops: Sequence[int]) -> dict[str, Any]:
    """The request's sampling, and the tokens that end a turn.

    vLLM takes missing values from the model's generation_config.json, so all of them are sent. Its own ends
    of a turn may lack the one of the chat template, as with base models that are packaged as chat models.
    """
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": sampling.max_completion_tokens,
        "stop_token_ids": list(stops),
    }


def decoding_keys(prompter: Prompter) -> dict[str, Any]:
    """Asks for special tokens where they may mark a thought; servers leave them out of a text, and the
    thought would count as a part of the answer.
    """
    return {"skip_special_tokens": False} if prompter.loses_thinking else {}


def retry_after_s(response: httpx2.Response) -> float:
    """Seconds of the Retry-After header: a number or a date (RFC 9110, 10.2.3); 0 without one."""
    value = response.headers.get("retry-after", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
