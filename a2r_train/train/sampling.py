"""GRPO whose order of the bundles follows from the seed and the epoch, so that a training goes on where it
was in any epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from trl.trainer.utils import RepeatSampler

from a2r_train.train.one_pass import OnePassGRPOTrainer


class EpochSampler(RepeatSampler):
    """TRL's, which draws the orders of all epochs from one generator: begun anew in the third it would repeat
    the first.

    `set_epoch` would not do: accelerate does not pass it through where it skips batches for one of several
    processes.
    """

    def __init__(self, its: Any, epoch: Callable[[], int]) -> None:
        super().__init__(
            its.data_source, its.mini_repeat_count, its.batch_size, its.repeat_count, its.shuffle, its.seed
        )
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + self.epoch())
        return iter(super().__iter__())  # type: ignore[no-untyped-call]


class EpochGRPOTrainer(OnePassGRPOTrainer):
    """TRL's with that sampler; its first epoch has the same order."""

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        return EpochSampler(super()._get_train_sampler(dataset), lambda: int(self.state.epoch or 0))
