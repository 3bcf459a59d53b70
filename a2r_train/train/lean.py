"""GRPO that keeps the GPU waiting less: what TRL repeats on the host is done once.

TRL's data loader reads and walks through the rows of a whole generation for each micro-batch, and TRL
tokenizes a prompt once a completion. Python's garbage collector walks through all that torch and transformers
hold, for half a second, once or twice a step; a vLLM that starts in this process ends that for what is there
by then. What comes out is TRL's, as tests compare.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import accumulate, compress
from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer


class Batch:
    """The rows of a generation; who goes through them gets copies. It is no list, so that the data loader
    does not look for tensors in the texts of each row.
    """

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(deepcopy, self._rows)

    def __contains__(self, name: object) -> bool:
        """The trainer asks for `input_ids` and `labels`, which rows of GRPO do not have."""
        return False


class ReadOnce(torch.utils.data.Dataset[Batch]):
    """A data set of which a batch is read once, each different row once, however often in a row it is asked
    for.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self._places: list[int] = []
        self._batch = Batch([])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, places: list[int]) -> Batch:
        if places != self._places:
            once = list(dict.fromkeys(places))
            found = dict(zip(once, self.rows.__getitems__(once), strict=True))
            self._places, self._batch = places, Batch([found[at] for at in places])
        return self._batch


@contextmanager
def frozen() -> Iterator[None]:
    """What is there by now is no garbage, and is not looked through for it."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class LeanGRPOTrainer(GRPOTrainer):
    """TRL's, with three methods overridden to do less, and one to unwrap a batch."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with frozen():
            return super().train(*args, **kwargs)

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("is_training") and hasattr(dataset, "__getitems__"):
            dataset = ReadOnce(dataset)
        return super()._get_dataloader(dataset, *args, **kwargs)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        return super()._generate_and_score_completions(list(inputs))

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        """The rows of a group stand one after the other."""
        is_new = [not at or prompt != prompts[at - 1] for at, prompt in enumerate(prompts)]
        ids, images, fields = super()._tokenize_prompts([*compress(prompts, is_new)])
        if images or fields:  # they go by row
            return super()._tokenize_prompts(prompts)
        return [ids[count - 1] for count in accumulate(is_new)], images, fields
