"""The interface that every engine shares."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from a2r_train.config import check_least
from a2r_train.errors import InputError
from a2r_train.prompts import Chat, Prompter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger(__name__)
FAILED = "failed"
UNANSWERED = (FAILED, "refused")  # finish reasons of prompts that no model answered
MOST_TOKENS_TOLD = 20  # of `next_tokens`: the most that vLLM gives by default
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Sampling:
    """How a completion is drawn.

    Temperature 0 is greedy; top_k 0 and top_p 1 leave the distribution whole.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_completion_tokens: int = 1024

    def __post_init__(self) -> None:
        if (
            not 0 <= self.temperature < math.inf
            or not 0 < self.top_p <= 1
            or self.top_k < 0
            or self.max_completion_tokens < 1
        ):
            raise InputError(
                f"sampling: {self} is out of range; expected temperature >= 0, 0 < top_p <= 1, top_k >= 0, "
                "max_completion_tokens >= 1"
            )


@dataclass(kw_only=True)
class EngineArguments:
    """The keys of a recipe that say how its models generate; part of every stage's config that has an
    engine.
    """

    engine: str = field(
        default="auto",
        metadata={
            "help": "what generates: transformers, vllm or openai; auto takes vllm on a GPU if it is "
            "installed and serves the model"
        },
    )
    dtype: str = field(
        default="auto",
        metadata={"help": f"one of {', '.join(DTYPES)}; auto is bfloat16 on a GPU, float32 on a CPU"},
    )
    batch_size: int = field(default=64, metadata={"help": "transformers: completions generated at once"})
    tensor_parallel_size: int = field(
        default=1, metadata={"help": "vllm: GPUs that share one copy of the model"}
    )
    data_parallel_size: int = field(default=1, metadata={"help": "vllm: copies of the model"})
    copies_per_gpu: int = field(
        default=1, metadata={"help": "vllm: copies of a small model that share each GPU"}
    )
    gpu_memory_utilization: float = field(
        default=0.9, metadata={"help": "vllm: share of a GPU's memory that it may use"}
    )
    endpoint: str = field(default="", metadata={"help": "openai: base URLs of servers, comma-separated"})
    max_concurrent_requests: int = field(
        default=64, metadata={"help": "openai: concurrent requests to each endpoint"}
    )
    request_deadline_s: float = field(
        default=600.0, metadata={"help": "openai: seconds until a request counts as lost"}
    )
    seeded: bool = field(
        default=True,
        metadata={
            "help": "vllm and openai: each completion has a seed, so that it can "
            "be reproduced on a CPU; false leaves the seeds out, which is faster there"
        },
    )

    def check_engine_arguments(self) -> None:
        """Raise InputError for a value that makes no sense for any model."""
        check_least(
            self, batch_size=1, tensor_parallel_size=1, data_parallel_size=1, max_concurrent_requests=1
        )
        check_least(self, request_deadline_s=1, copies_per_gpu=1)
        if self.copies_per_gpu > 1 and self.tensor_parallel_size > 1:
            raise InputError("copies_per_gpu is for a model on one GPU; expected tensor_parallel_size: 1")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise InputError(
                f"gpu_memory_utilization is {self.gpu_memory_utilization:g}; "
                "expected a share above 0, at most 1"
            )
        if self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r}: expected {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")


# Keys that a continued run may change: where and how fast completions are made, not which.
ENGINE_MAY_DIFFER = tuple(
    f.name for f in fields(EngineArguments) if f.name not in ("engine", "dtype", "seeded")
)
ENGINE_KEYS = tuple(f.name for f in fields(EngineArguments))


Batch = tuple[Sequence[Chat], Sequence[int]]  # chats, and the seed of each


@dataclass(frozen=True)
class Completion:
    """What an engine returns for one chat; token counts are the engine's. finish_reason: `stop`, `length`,
    or, with an empty text, `refused` (the prompt fills the context, or a server did not take it) or `failed`
    (no attempt was answered)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


def hardware(engine: object) -> str:
    """The GPU's name, or the processor's with its threads in use; vLLM and servers run in other processes."""
    import platform

    import torch

    device = getattr(engine, "device", None)
    if device is None:
        return "vLLM or a server"
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def warn_failed(folder: Path, finish_reasons: Iterable[str]) -> None:
    """Log how many requests of a run were never answered; the engine's own warnings may be hours old."""
    found = Counter(finish_reasons)
    if found[FAILED]:
        log.warning(
            "%s: %d of %d requests were never answered, and count as wrong; to ask them again, "
            'remove done.json and the files that hold "finish_reason": "failed", and start the same command',
            folder,
            found[FAILED],
            found.total(),
        )


def warn_refused(model: str, refused: int, asked: int) -> None:
    """Log how many prompts leave no room in the context; their completions are empty and count as wrong."""
    if refused:
        log.warning(
            "%s: %d of %d prompts leave no room in its context, and are not answered", model, refused, asked
        )


def token_ids_of(prompter: Prompter, chats: Sequence[Chat]) -> list[list[int]]:
    """The prompt of each chat. The samples of a problem share one chat, which is rendered once."""
    rendered: dict[str, list[int]] = {}
    keys = [chat_key(chat) for chat in chats]
    for key, chat in zip(keys, chats, strict=True):
        if key not in rendered:
            rendered[key] = prompter.token_ids(chat)
    return [rendered[key] for key in keys]


def by_token(tokenizer: PreTrainedTokenizerBase, probabilities: Mapping[int, float]) -> dict[str, float]:
    """Probabilities by the text of a token; tokens may share a text, as parts of characters do."""
    found: dict[str, float] = {}
    for token, probability in probabilities.items():
        text = str(tokenizer.decode([token]))
        found[text] = found.get(text, 0.0) + probability
    return found


class Engine(Protocol):
    """A model that answers chats. `name` is the model as the recipe names it.

    `parameters` is for the cost by FLOPs; 0 where they are not known.
    """

    name: str
    parameters: int
    tokenizer: PreTrainedTokenizerBase

    def generate(self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion per chat, in order. The seed of a chat fixes its completion, whatever else is in the
        batch, unless the engine was told to do without seeds."""
        ...

    def generate_batches(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[list[Completion]]:
        """The completions of each batch, in order. Batches are drawn as they are needed: an engine may begin
        the next ones while the last completions of a batch are made, so that it stays busy. Between two
        batches, it answers nothing but `next_tokens`."""
        for chats, seeds in batches:
            yield self.generate(chats, sampling, seeds)

    def next_tokens(self, prompts: Sequence[list[int]]) -> list[dict[str, float]]:
        """The most probable next tokens of each prompt, which is given as token ids, with their
        probabilities: at most MOST_TOKENS_TOLD. Empty for a prompt that fills the context, and for an
        engine that does not know them."""
        ...


def chat_key(chat: Chat) -> str:
    """A key that is equal for chats that are rendered the same."""
    return json.dumps([chat, vars(chat) if isinstance(chat, Chat) else {}])
