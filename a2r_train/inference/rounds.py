"""Recursive aggregation: each population of solutions is synthesised into the next one."""

from __future__ import annotations

import random
from dataclasses import dataclass

from a2r_train.errors import InputError
from a2r_train.records import seed_of


@dataclass(frozen=True)
class Rounds:
    """Recursive aggregation (RSA, arXiv 2509.26626): each population of solutions is synthesised into the
    next one, `rounds` times.

    Each new member is a synthesis of a random subset of the last population; the answer is the majority of
    the final population. The synthesizer should sample: at temperature 0 equal subsets give equal members.
    """

    population: int = 8
    subset: int = 4
    rounds: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.subset <= self.population or self.rounds < 1:
            raise InputError(
                f"rounds: {self} is out of range; expected 1 <= subset <= population and rounds >= 1"
            )

    def subsets(self, seed: int, name: str, turn: int) -> list[list[int]]:
        """Which members each synthesis of a round reads, sampled without replacement."""
        draws = [random.Random(seed_of(seed, "subset", name, turn, at)) for at in range(self.population)]
        return [draw.sample(range(self.population), self.subset) for draw in draws]
