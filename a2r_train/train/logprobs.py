"""The log-probabilities of what vLLM drew, read from its flat lists.

vLLM makes an object and a dictionary for each token unless it is told otherwise, and TRL sorts each of them.
That takes a third of a second of a step of 256 completions, and gives the garbage collector work.
"""

from __future__ import annotations

from typing import Any

from trl.generation import vllm_generation

FLAT = {"flat_logprobs": True}  # an option of vLLM's SamplingParams
_ITS = vllm_generation.extract_logprobs


def extract_logprobs(all_outputs: list[Any]) -> Any:
    """TRL's: log-probabilities, None for NaN, and tokens, as [[value] for each token] of each completion."""
    found = [one.logprobs for outputs in all_outputs for one in outputs.outputs]
    if not all(_holds_the_drawn_alone(one) for one in found):
        return _ITS(all_outputs)
    values = [[[None if value != value else value] for value in one.logprobs] for one in found]
    return values, [[[token] for token in one.token_ids] for one in found]


def _holds_the_drawn_alone(logprobs: Any) -> bool:
    """Whether it is vLLM's `FlatLogprobs` with one token at each place."""
    starts = getattr(logprobs, "start_indices", None)
    return starts is not None and len(starts) == len(logprobs.logprobs)


def read_flat_lists() -> None:
    """Let TRL read them in this way."""
    trl: Any = vllm_generation
    trl.extract_logprobs = extract_logprobs
