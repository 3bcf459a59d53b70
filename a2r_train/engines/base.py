"""The interface that every engine shares."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from a2r_train.errors import InputError
from a2r_train.prompts import Chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger(__name__)
FAILED = "failed"
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
                f"sampling: {self} is out of range; expected temperature >= 0, 0 < top_p <= 1, top_k >= 0"
            )


@dataclass(frozen=True)
class Completion:
    """What an engine returns for one chat; token counts are the engine's. finish_reason: `stop`, `length`,
    or, with an empty text, `refused` (the prompt fills the context, or a server did not take it) or `failed`
    (no try was answered)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


def hardware(engine: object) -> str:
    """The GPU's name, or the processor's with its threads in use; vLLM and a server have theirs in other
    processes.
    """
    import platform

    import torch

    device = getattr(engine, "device", None)
    if device is None:
        return "vLLM or a server"
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def tell_failed(folder: Path, finish_reasons: Iterable[str]) -> None:
    """Say how many requests of a run a server never answered: the engine's own word for each batch may be
    hours old.
    """
    found = Counter(finish_reasons)
    if found[FAILED]:
        log.warning(
            "%s: %d of %d requests were never answered, and count as wrong; to ask them again, "
            'remove done.json and the files that hold "finish_reason": "failed", and start the same command',
            folder,
            found[FAILED],
            found.total(),
        )


def tell_refused(model: str, refused: int, asked: int) -> None:
    """Say that prompts leave no room in the model's context; their completions are empty, and count as
    wrong.
    """
    if refused:
        log.warning(
            "%s: %d of %d prompts leave no room in its context, and are not answered", model, refused, asked
        )


class Engine(Protocol):
    """A model that answers chats. `name` is the model as the recipe names it.

    `parameters` is for the cost by FLOPs; 0 where they are not known.
    """

    name: str
    parameters: int
    tokenizer: PreTrainedTokenizerBase

    def generate(self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a chat, in order; the seed of a chat fixes its completion, whatever else is in the
        batch, unless the engine was told to do without seeds."""
        ...
