"""The body of a chat completion, read with strict keys; unsupported parameters are refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from a2r_train.inference.serve.config import ServeConfig
from a2r_train.inference.serve.errors import ApiError, invalid
from a2r_train.prompts import visible

MOST_STOPS = 4  # as OpenAI, and vLLM unless told otherwise; checked before stage 1 is paid for
MOST_SEED = 2**63 - 1
# Parameters of OpenAI's API for what a pair cannot do, and the values that do not ask for it.
NOT_SERVED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"], []),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
}
# Parameters that change no answer: they are accepted and ignored.
NO_MATTER = frozenset(
    {
        "user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier",
        "prompt_cache_key", "prompt_cache_retention",
    }
)  # fmt: skip
READ = frozenset(
    {
        "model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens",
        "temperature", "top_p", "stop", "seed", "a2r",
    }
)  # fmt: skip
OWN = frozenset({"k", "explore_temperature", "references"})


@dataclass(frozen=True)
class Turn:
    """One earlier turn of a conversation; its role is user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Ask:
    """What a request asks for. `problem` is the last turn; max_tokens and seed are None if not given."""

    problem: str
    system: str
    earlier: tuple[Turn, ...]
    stream: bool
    include_usage: bool
    n: int
    max_tokens: int | None
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int | None
    k: int
    explore_temperature: float
    references: bool


def parse_ask(body: bytes, config: ServeConfig) -> Ask:
    """Parse a request. Raises ApiError, with the name of the parameter, for anything unsupported."""
    row = _row(body)
    _check_served(row)
    if _text(row, "model") != config.name:
        raise invalid("model", f"{row['model']!r} is not served; {config.name!r} is", "model_not_found")
    system, turns = _turns(row.get("messages"))
    own = _object(row, "a2r", OWN)
    options = _object(row, "stream_options", {"include_usage", "include_obfuscation"})
    stream = _boolean(row, "stream")
    if options and not stream:
        raise invalid("stream_options", "expected only if `stream` is true")
    longest = "max_completion_tokens" if row.get("max_completion_tokens") is not None else "max_tokens"
    return Ask(
        problem=turns[-1].content,
        system=system,
        earlier=tuple(turns[:-1]),
        stream=stream,
        include_usage=_boolean(options, "include_usage", "stream_options."),
        n=_integer(row, "n", 1, config.most_n) or 1,
        max_tokens=_integer(row, longest, 1, 10**9),
        temperature=_number(row, "temperature", 0, 2, config.temperature),
        top_p=_number(row, "top_p", 0, 1, 1.0, above=True),
        stop=_stops(row),
        seed=_integer(row, "seed", -MOST_SEED - 1, MOST_SEED),
        k=_integer(own, "k", 1, config.most_k, "a2r.") or config.k,
        explore_temperature=_number(
            own, "explore_temperature", 0, 2, config.explore_temperature, place="a2r."
        ),
        references=_boolean(own, "references", "a2r."),
    )


def _row(body: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        row = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        says = str(error)[:100] or type(error).__name__
        raise ApiError(400, f"the body is not JSON ({says})", code="invalid_json") from None
    if not isinstance(row, dict):
        raise ApiError(400, "the body is not a JSON object", code="invalid_json")
    return row


def _check_served(row: Mapping[str, Any]) -> None:
    for name, value in row.items():
        if name in NOT_SERVED:
            if value is not None and not any(_same(value, idle) for idle in NOT_SERVED[name]):
                raise invalid(name, "is not supported by a pair of models", "unsupported_parameter")
        elif name not in READ | NO_MATTER:
            raise invalid(_key(name), "unknown parameter", "unknown_parameter")


def _same(value: Any, idle: Any) -> bool:
    return bool(value == idle) and isinstance(value, bool) == isinstance(idle, bool)


def _turns(messages: Any) -> tuple[str, list[Turn]]:
    """The system text, and the turns; the last one is the user's."""
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "expected a list of at least one message")
    system: list[str] = []
    turns: list[Turn] = []
    for at, message in enumerate(messages):
        place = f"messages[{at}]"
        role, content = _message(message, place)
        if role in ("system", "developer"):
            if turns:
                raise invalid(f"{place}.role", f"a {role} turn must come before all others")
            system.append(content)
        else:
            turns.append(Turn(role, visible(content) if role == "assistant" else content))
    if not turns or turns[-1].role != "user":
        raise invalid("messages", "expected the last message to be the user's")
    if not turns[-1].content.strip():
        raise invalid(f"messages[{len(messages) - 1}].content", "is empty")
    return "\n\n".join(filter(None, system)), turns


def _message(message: Any, place: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise invalid(place, "expected an object with role and content")
    role = message.get("role")
    if role not in ("system", "developer", "user", "assistant"):
        raise invalid(f"{place}.role", f"is {_shown(role)}; expected system, user or assistant")
    for name in ("tool_calls", "function_call", "audio"):
        if message.get(name):
            raise invalid(f"{place}.{name}", "is not supported by a pair of models", "unsupported_parameter")
    return role, _content(message.get("content"), f"{place}.content")


def _content(content: Any, place: str) -> str:
    """A text, or the joined texts of its parts. Raises ApiError for an image, or for text that is not valid
    UTF-8.
    """
    if isinstance(content, list):
        texts = []
        for at, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind != "text":
                raise invalid(
                    f"{place}[{at}].type",
                    f"is {_shown(kind)}; only text is supported",
                    "unsupported_parameter",
                )
            texts.append(_content(str(part["text"]) if isinstance(part.get("text"), str) else None, place))
        return "".join(texts)
    if not isinstance(content, str):
        raise invalid(place, f"is {_shown(content)}; expected text")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError:
        raise invalid(place, "contains half a surrogate pair, which is not valid text") from None
    return content


def _stops(row: Mapping[str, Any]) -> tuple[str, ...]:
    given = row.get("stop")
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(map(_is_stop, stops)):
        raise invalid("stop", f"expected a text, or at most {MOST_STOPS} of them, none of them empty")
    return tuple(_content(stop, "stop") for stop in stops)


def _is_stop(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _object(row: Mapping[str, Any], name: str, known: frozenset[str] | set[str]) -> dict[str, Any]:
    value = row.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(name, f"is {_shown(value)}; expected an object")
    for key in value:
        if key not in known:
            raise invalid(f"{name}.{_key(key)}", f"unknown; expected {', '.join(sorted(known))}")
    return value


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise invalid(name, f"is {_shown(value)}; expected text")
    return value


def _boolean(row: Mapping[str, Any], name: str, place: str = "") -> bool:
    value = row.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{place}{name}", f"is {_shown(value)}; expected true or false")
    return bool(value)


def _integer(row: Mapping[str, Any], name: str, least: int, most: int, place: str = "") -> int | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise invalid(f"{place}{name}", f"is {_shown(value)}; expected a whole number, {least} to {most}")
    return value


def _number(
    row: Mapping[str, Any],
    name: str,
    least: float,
    most: float,
    default: float,
    above: bool = False,
    place: str = "",
) -> float:
    value = row.get(name)
    if value is None:
        return default
    fits: Callable[[float], bool] = lambda x: (least < x if above else least <= x) and x <= most  # noqa: E731
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or (isinstance(value, float) and not math.isfinite(value)) or not fits(value):
        bounds = f"above {least}, at most {most}" if above else f"{least} to {most}"
        raise invalid(f"{place}{name}", f"is {_shown(value)}; expected a number, {bounds}")
    return float(value)


def _shown(value: Any) -> str:
    """A client's value on one line of plain characters. A text keeps its quotes: "4" is no number."""
    return ascii(value[:60] if isinstance(value, str) else value)[:62]


def _key(name: Any) -> str:
    """A client's key, likewise."""
    return _shown(name).strip("'")
