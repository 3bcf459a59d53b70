"""GRPO that keeps the GPU waiting less: work that TRL repeats on the host is done once.

For each micro-batch TRL's data loader reads and traverses the rows of a whole generation, and TRL tokenizes a
prompt once per completion. Once or twice a step Python's garbage collector spends half a second traversing
everything that torch and transformers hold. Once vLLM has started in this process, the objects that exist by
then are excluded (`gc.freeze`). The results equal TRL's, as tests check.
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
    """The rows of a generation; iterating yields copies. It is not a list, so that the data loader does not
    search the texts of each row for tensors.
    """

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(deepcopy, self._rows)

    def __contains__(self, name: object) -> bool:
        """The trainer asks for `input_ids` and `labels`, which rows of GRPO do not have."""
        return False


class ReadOnce(torch.utils.data.Dataset[Batch]):
    """A dataset that reads a batch once, and each distinct row in it once, however often in succession the
    batch is asked for.
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
    """Exempt all objects that exist now from garbage collection."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class LeanGRPOTrainer(GRPOTrainer):
    """TRL's trainer, with three methods overridden to do less, and one to unwrap a batch."""

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
        """Tokenize each prompt once: the rows of a group are adjacent."""
        is_new = [not at or prompt != prompts[at - 1] for at, prompt in enumerate(prompts)]
        ids, images, fields = super()._tokenize_prompts([*compress(prompts, is_new)])
        if images or fields:  # these are per row
            return super()._tokenize_prompts(prompts)
        return [ids[count - 1] for count in accumulate(is_new)], images, fields
