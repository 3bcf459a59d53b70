"""The completions that `generate` works on at once: those that ended leave, and others take their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad


@dataclass
class Rows:
    """Completions under way, left-padded to one width.

    `numbers`: which prompt each row answers. `begins` [rows]: the column where its completion begins. `ids`
    and `mask` [rows, width]. `cache`: the keys and values of all columns but the last; None if nothing of
    the prompts has been read yet.
    """

    numbers: list[int]
    begins: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor
    cache: Any = None

    def inputs(self) -> dict[str, Any]:
        """What `generate` continues from."""
        read = {} if self.cache is None else {"past_key_values": self.cache}
        return {"input_ids": self.ids, "attention_mask": self.mask, **read}

    def lengths(self) -> torch.Tensor:
        """Tokens of each completion so far [rows]."""
        return self.ids.shape[1] - self.begins

    def grown(self, made: Any) -> Rows:
        """With the tokens that `generate` added."""
        more = made.sequences.shape[1] - self.ids.shape[1]
        return Rows(
            self.numbers,
            self.begins,
            made.sequences,
            pad(self.mask, (0, more), value=1),
            made.past_key_values,
        )

    def completions(self, which: torch.Tensor) -> list[tuple[int, list[int]]]:
        """(number, token ids of the completion) of the rows where `which` [rows] is true."""
        picked = which.nonzero().flatten().tolist()
        return [(self.numbers[row], self.ids[row, int(self.begins[row]) :].tolist()) for row in picked]

    def only(self, which: torch.Tensor) -> Rows:
        """The rows where `which` [rows] is true; the cache is changed in place, and freed after the last."""
        stay = which.nonzero().flatten()
        if 0 < len(stay) < len(self.numbers):
            self.cache.batch_select_indices(stay)
        numbers = [self.numbers[row] for row in stay.tolist()]
        cache = self.cache if numbers else None
        return Rows(numbers, self.begins[stay], self.ids[stay], self.mask[stay], cache)

    def with_more(self, others: Rows) -> Rows:
        """These rows and others, whose cache is used up; columns that are padding in all rows are dropped."""
        cut = int(self.mask.argmax(1).min())
        width = max(self.ids.shape[1] - cut, others.ids.shape[1])
        shifts = [width - self.ids.shape[1], width - others.ids.shape[1]]
        ids, mask = (
            torch.cat([_shifted(one, by) for one, by in zip(pair, shifts, strict=True)])
            for pair in ((self.ids, others.ids), (self.mask, others.mask))
        )
        begins = torch.cat([self.begins + shifts[0], others.begins + shifts[1]])
        cache = joined([self.cache, others.cache], shifts)
        return Rows([*self.numbers, *others.numbers], begins, ids, mask, cache)


def _shifted(rows: torch.Tensor, by: int) -> torch.Tensor:
    """Rows [rows, width] with `by` more columns on the left, fewer if negative."""
    return pad(rows, (by, 0))


def joined(caches: Sequence[Any], shifts: Sequence[int] = ()) -> Any:
    """One cache from several, each with `shifts` more columns on the left, fewer if negative. Works one layer
    at a time, and frees the parts as it goes.
    """
    whole, *others = caches
    by = shifts or [0] * len(caches)
    for i, layer in enumerate(whole.layers if others else []):
        layers = [layer, *(cache.layers[i] for cache in others)]
        layer.keys, layer.values = (
            torch.cat(
                [pad(getattr(one, name), (0, 0, shift, 0)) for one, shift in zip(layers, by, strict=True)]
            )
            for name in ("keys", "values")
        )
        for one in layers[1:]:
            one.keys = one.values = None
    return whole
