"""The log-probabilities of what vLLM sampled, read from its flat lists.

By default vLLM makes an object and a dictionary for each token, and TRL sorts each of them. For a step of 256
completions that takes a third of a second, and it makes work for the garbage collector.
"""

from __future__ import annotations

from typing import Any

from trl.generation import vllm_generation

FLAT = {"flat_logprobs": True}  # an option of vLLM's SamplingParams
_ITS = vllm_generation.extract_logprobs


def extract_logprobs(all_outputs: list[Any]) -> Any:
    """As TRL's function: log-probabilities, None for NaN, and tokens, as [[value] for each token] of each
    completion.
    """
    found = [one.logprobs for outputs in all_outputs for one in outputs.outputs]
    if not all(_holds_the_drawn_alone(one) for one in found):
        return _ITS(all_outputs)
    values = [[[None if value != value else value] for value in one.logprobs] for one in found]
    return values, [[[token] for token in one.token_ids] for one in found]


def _holds_the_drawn_alone(logprobs: Any) -> bool:
    """Whether it is vLLM's `FlatLogprobs` with only the sampled token at each position."""
    starts = getattr(logprobs, "start_indices", None)
    return starts is not None and len(starts) == len(logprobs.logprobs)


def read_flat_lists() -> None:
    """Make TRL read them this way."""
    trl: Any = vllm_generation
    trl.extract_logprobs = extract_logprobs
