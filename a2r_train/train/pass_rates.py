"""The part of dynamic sampling that needs no model: which groups are generated besides the sampler's, and
which are kept (DAPO, arXiv 2503.14476, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

from a2r_train.data.bundles import Bundles
from a2r_train.records import seed_of

# Jeffreys' prior: as many right as wrong, with little weight.
PRIOR = 0.5
# Share of a bundle's earlier counts that is kept when a new group comes: the model has changed since.
KEPT = 0.5

Known = dict[str, list[float]]  # by bundle id: right completions and all completions of its earlier groups


class Bank:
    """All training bundles, with the number of right references of each; further groups are drawn from it."""

    def __init__(self, ids: Sequence[str], right: Sequence[int], references: Sequence[int]) -> None:
        self.ids, self.at = list(ids), {identity: at for at, identity in enumerate(ids)}
        self.counts = np.array([right, references], dtype=float)

    @staticmethod
    def of(bundles: Bundles) -> Bank:
        """The bank of these bundles, in their order."""
        right = bundles.column("n_correct").to_pylist()
        if bundles.mapped is None:
            return Bank([b.id for b in bundles.held], right, [len(b.references) for b in bundles.held])
        references = pc.list_value_length(bundles.column("references")).to_pylist()
        return Bank(bundles.column("id").to_pylist(), right, references)

    def chances(self, known: Known, group: int) -> np.ndarray:
        """(bundles,) chance that a group of this size has both right and wrong completions.

        The pass rate has a beta distribution, estimated from the references at first, then from the bundle's
        earlier groups.
        """
        counts = self.counts.copy()
        for identity, seen in known.items():
            if identity in self.at:  # a resumed training may hold counts of bundles that it no longer has
                counts[:, self.at[identity]] = seen
        right, made = counts
        return signal_chance(right + PRIOR, made - right + PRIOR, group)

    def draw(self, count: int, without: Sequence[int], known: Known, group: int, seed: int) -> list[int]:
        """`count` further bundles, each at most once, with probability proportional to its chance of a
        signal.

        Uses the keys of Efraimidis and Spirakis (2006). The result depends only on the arguments, so it is
        the same in every process, and in a resumed run.
        """
        generator = np.random.default_rng(seed)
        keys = np.log(generator.random(len(self.ids))) / self.chances(known, group)
        keys[list(without)] = -np.inf
        return [int(at) for at in np.argsort(-keys, kind="stable")[:count]]


def signal_chance(a: np.ndarray, b: np.ndarray, group: int) -> np.ndarray:
    """1 - E[p^group] - E[(1-p)^group] for p of Beta(a, b), elementwise."""
    steps = np.arange(group)[:, None]
    all_right = np.prod((a + steps) / (a + b + steps), axis=0)
    all_wrong = np.prod((b + steps) / (a + b + steps), axis=0)
    return np.asarray(1 - all_right - all_wrong)


def learn(known: Known, passes: Mapping[str, Sequence[float]]) -> None:
    """Update `known` with the verified rewards, from 0 to 1, of a new group of each of these bundles."""
    for identity, rewards in passes.items():
        right, made = known.get(identity, (0.0, 0.0))
        known[identity] = [KEPT * right + sum(rewards), KEPT * made + len(rewards)]


def has_signal(rewards: np.ndarray) -> np.ndarray:
    """(groups,) whether the rewards of a group differ; `rewards` (groups, members), NaN for none."""
    low = np.where(np.isnan(rewards), np.inf, rewards).min(axis=1)
    high = np.where(np.isnan(rewards), -np.inf, rewards).max(axis=1)
    return np.asarray(high - low > 1e-6)


def chosen(alive: Sequence[bool], count: int) -> list[int]:
    """The first `count` groups with a signal, topped up with the first of the others; in order."""
    order = sorted(range(len(alive)), key=lambda at: not alive[at])
    return sorted(order[:count])


def seed_for(seed: int, generation: int) -> int:
    """The seed for the draw of one generation."""
    return seed_of(seed, "dynamic sampling", str(generation))
