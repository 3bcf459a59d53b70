"""How long a training takes, by what it must compute and read, at a stated share of what a GPU can do.

Matrix work of training: 2 FLOPs for each weight and token in each pass (PaLM, arXiv 2204.02311, appendix B):
forward, backward to the activations, backward to the weights that are trained, and forward again with
activation checkpointing. Attention: 4 x layers x attention width for each query and key that see each other.
Generation reads all weights and the KV cache once for each token of all the sequences that run together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from a2r_train.train.estimate.memory import BFLOAT16, Size

MATRIX_FLOPS = 790e12  # a second, bfloat16, dense: what an H100 or H200 reaches in large matrix products
MATRIX_SHARE = 0.4  # of it, in training
BANDWIDTH = 3.35e12  # bytes a second of an H100's memory; an H200 has 4.8e12
BANDWIDTH_SHARE = 0.5  # of it, in generation


@dataclass(frozen=True)
class Work:
    """One part of a stage: tokens in all, and hours."""

    name: str
    tokens: float
    hours: float


@dataclass(frozen=True)
class Group:
    """A prompt with its completions, in tokens; `shared`: the prompt is computed once (shared prefix)."""

    prompt: int
    completion: int
    completions: int = 1
    shared: bool = False

    @property
    def tokens(self) -> int:
        return self._prompts * self.prompt + self.completions * self.completion

    @property
    def predicted(self) -> int:
        return self.completions * self.completion

    @property
    def pairs(self) -> float:
        """Queries and keys that see each other."""
        completions = self.completions * (self.completion * self.prompt + self.completion**2 / 2)
        return self._prompts * self.prompt**2 / 2 + completions

    @property
    def _prompts(self) -> int:
        return 1 if self.shared else self.completions


def training(name: str, size: Size, group: Group, groups: float, processes: int, scored: int = 0) -> Work:
    """Forward and backward over so many groups, with `scored` more forward passes (old and reference
    log-probabilities).
    """
    back = 2 if size.full else 1
    again = int(size.checkpointing)
    flops = (1 + back + again + scored) * _body(size, group) + (3 + again + scored) * _attention(size, group)
    flops += (2 + back + scored) * _head(size, group)  # its backward pass computes the logits again
    return Work(
        name, groups * group.tokens, groups * flops / (processes * MATRIX_FLOPS * MATRIX_SHARE) / 3600
    )


def generation(
    name: str, size: Size, group: Group, groups: float, processes: int, batch: int, room: float
) -> Work:
    """Completions of so many groups, `batch` sequences at once on each process, but no more than the KV cache
    has room for.

    `room` is the KV cache in bytes.
    """
    together = max(1, min(batch, room // (size.kv_bytes * (group.prompt + group.completion))))
    context = group.prompt + group.completion / 2
    step_s = (BFLOAT16 * size.parameters + together * context * size.kv_bytes) / (BANDWIDTH * BANDWIDTH_SHARE)
    sequences = math.ceil(groups * group.completions / processes)
    decoding_s = sequences / together * group.completion * step_s
    once = Group(group.prompt, 0)
    reading_s = (
        groups * (_body(size, once) + _attention(size, once)) / (processes * MATRIX_FLOPS * MATRIX_SHARE)
    )
    return Work(name, groups * group.predicted, (decoding_s + reading_s) / 3600)


def _body(size: Size, group: Group) -> float:
    """FLOPs of a forward pass but for attention and LM head."""
    return 2.0 * (size.parameters - size.embedding * (1 if size.tied else 2)) * group.tokens


def _attention(size: Size, group: Group) -> float:
    return 4.0 * size.layers * size.attention_width * group.pairs


def _head(size: Size, group: Group) -> float:
    return 2.0 * size.embedding * group.predicted
