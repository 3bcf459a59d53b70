"""GRPO with an order of the bundles that follows from seed and epoch, so that a training can resume in any
epoch; and dynamic sampling (DAPO, arXiv 2503.14476, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from trl.trainer.utils import RepeatSampler

from a2r_train.records import CORRECT
from a2r_train.train import pass_rates
from a2r_train.train.generated import made_by
from a2r_train.train.one_pass import OnePassGRPOTrainer
from a2r_train.train.pass_rates import Bank, Known
from a2r_train.train.preflight import Check
from a2r_train.train.watch import MOST_PASSES


class EpochSampler(RepeatSampler):
    """TRL's sampler, seeded for each epoch. TRL draws the orders of all epochs from one generator: resumed in
    the third epoch it would repeat the first.

    `set_epoch` would not do: where accelerate skips batches for one of several processes, it does not pass it
    on.
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


@dataclass(frozen=True)
class Kept:
    """What is kept of a generation: the rows of this process as TRL's `_generate` returns them, and the
    (rows, functions) rewards of the rows of all processes.
    """

    generated: tuple[Any, ...]
    rewards: torch.Tensor


class EpochGRPOTrainer(OnePassGRPOTrainer):
    """TRL's trainer with that sampler, whose first epoch has TRL's order; with a bank it samples dynamically.

    A generation then has `oversampling_factor` times the groups of a batch: the sampler's, and others drawn
    from the bank. The batch is filled with groups that have a signal, the sampler's first. After generation
    and rewards TRL sees only this batch, and its loss is unchanged.
    """

    def __init__(self, *args: Any, bank: Bank | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bank = bank
        self.group = int(self.num_generations or 1)
        self._kept: Kept | None = None

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        return EpochSampler(super()._get_train_sampler(dataset), lambda: int(self.state.epoch or 0))

    @property
    def made(self) -> dict[str, Any]:
        """What was generated so far; it is saved with each checkpoint."""
        return made_by(self.state)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        model: Any = self.model
        if self.bank is None or not model.training:
            return super()._generate_and_score_completions(inputs)
        inputs, self._kept = self._oversample(inputs, self.bank)
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self._kept = None

    def _generate(self, prompts: Any) -> Any:
        """TRL's completions, counted; within `_generate_and_score_completions`, those that were kept."""
        if self._kept is not None:
            return self._kept.generated
        generated = super()._generate(prompts)
        model: Any = self.model
        if model.training:
            self._count(generated[1])
        return generated

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Any:
        if self._kept is not None:
            return self._kept.rewards
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _count(self, completion_ids: Sequence[Sequence[int]]) -> None:
        """Add the tokens that all processes generated, and log the mean length relative to the first
        generation's.
        """
        lengths = torch.tensor([len(ids) for ids in completion_ids], device=self.accelerator.device)
        gathered: Any = self.accelerator.gather(lengths)
        mean = gathered.float().mean().item()
        self.made["generations"] += 1
        self.made["generated_tokens"] += int(gathered.sum())
        first = self.made.setdefault("first_length", mean)
        metrics = self._metrics["train"]
        metrics["generated_tokens"] = [self.made["generated_tokens"]]
        metrics["completions/length_ratio"].append(mean / max(first, 1.0))

    def _oversample(self, inputs: Sequence[Any], bank: Bank) -> tuple[list[Any], Kept]:
        """Generate all groups and keep a batch: this process's rows of the dataset, and what is kept of them.

        All processes choose the same groups out of all, and take equal shares of them, in order.
        """
        groups = self._groups(inputs, bank)
        rows = self._rows(groups)
        prompts = [row["prompt"] for row in rows]
        generated = self._generate(prompts)
        rewards = self._calculate_rewards(rows, prompts, generated[3], generated[1])
        made = gather_object(self._by_row(generated))
        right = [row[4]["verdict"] == CORRECT for row in made]
        kept = self._choose(groups, rewards, right, [len(row[1]) for row in made], bank)
        places = [at * self.group + member for at in kept for member in range(self.group)]
        mine = [made[at] for at in self._share(places)]
        return self._rows([groups[at] for at in kept]), Kept(self._as_generated(mine), rewards[places])

    def _groups(self, inputs: Sequence[Any], bank: Bank) -> list[int]:
        """The bundles of all processes' groups, as positions in the data: the sampler's, then the drawn
        ones.
        """
        args: Any = self.args
        ids = gather_object([row["bundle_id"] for row in inputs])[:: self.group]
        of_sampler = [bank.at[identity] for identity in ids]
        more = (args.oversampling_factor - 1) * len(of_sampler)
        known: Known = self.made.setdefault("pass_rates", {})
        seed = pass_rates.seed_for(args.seed, self.made["generations"])
        return of_sampler + bank.draw(more, of_sampler, known, self.group, seed)

    def _share(self, whole: Sequence[Any]) -> Sequence[Any]:
        """This process's share of what all processes have together."""
        size = len(whole) // self.accelerator.num_processes
        return whole[self.accelerator.process_index * size :][:size]

    def _rows(self, groups: Sequence[int]) -> list[Any]:
        """This process's rows of the dataset, each bundle once per completion."""
        data: Any = self.train_dataset
        mine = self._share([group for group in groups for _ in range(self.group)])
        once = list(dict.fromkeys(mine))
        found = dict(zip(once, data.__getitems__(once), strict=True))
        return [found[at] for at in mine]

    def _by_row(self, generated: Any) -> list[tuple[Any, ...]]:
        """What TRL's `_generate` returned and what the rewards logged for each completion, row by row."""
        prompt_ids, completion_ids, _, completions, logprobs, _, _, _ = generated
        extra: Any = self._pending_extra_logs
        told = [{name: values[at] for name, values in extra.items()} for at in range(len(prompt_ids))]
        sampled = logprobs or [None] * len(prompt_ids)
        return list(zip(prompt_ids, completion_ids, completions, sampled, told, strict=True))

    def _as_generated(self, rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        """The inverse, for some rows: what TRL's `_generate` would return; there are no tools and no
        images.
        """
        prompt_ids, completion_ids, completions, logprobs, told = map(list, zip(*rows, strict=True))
        extra: Any = self._pending_extra_logs
        for name in extra:
            extra[name] = [one[name] for one in told]
        sampled = None if logprobs[0] is None else logprobs
        return prompt_ids, completion_ids, None, completions, sampled, {}, None, []

    def _choose(
        self,
        groups: Sequence[int],
        rewards: torch.Tensor,
        right: Sequence[bool],
        tokens: Sequence[int],
        bank: Bank,
    ) -> list[int]:
        """The positions of the groups to keep; also updates the pass rates and logs.

        `rewards` (rows, functions), `right` (rows) and `tokens` (rows) cover all processes. A pass rate
        counts right completions: with `pass_at_k` a reward is a credit, which a wrong completion may also
        earn.
        """
        by_function = rewards.float().cpu().numpy().reshape(len(groups), self.group, -1)
        total = np.nansum(by_function * self.reward_weights.cpu().numpy(), axis=2)
        total[np.isnan(by_function).all(axis=2)] = np.nan
        verified = np.reshape(right, (len(groups), -1)).astype(float)
        ids = [bank.ids[at] for at in groups]
        pass_rates.learn(self.made["pass_rates"], dict(zip(ids, verified.tolist(), strict=True)))
        alive = pass_rates.has_signal(total)
        args: Any = self.args
        kept = pass_rates.chosen(alive.tolist(), len(groups) // args.oversampling_factor)
        dropped = np.delete(np.reshape(tokens, (len(groups), -1)), kept, axis=0)
        self.made["dropped_tokens"] = self.made.get("dropped_tokens", 0) + int(dropped.sum())
        self._log_choice(alive, kept, float(np.nanmean(total)), float(verified[: len(kept)].mean()))
        self._count_trained([ids[at] for at in kept])
        return kept

    def _count_trained(self, ids: Sequence[str]) -> None:
        """Count how often each bundle is trained on, which epochs do not tell: some are drawn more often."""
        trained: dict[str, int] = self.made.setdefault("trained", {})
        for identity in ids:
            trained[identity] = trained.get(identity, 0) + int(self.num_iterations)
        often = sum(count > MOST_PASSES for count in trained.values()) / len(trained)
        self._metrics["train"]["dynamic_sampling/often_trained"] = [often]

    def _log_choice(self, alive: Any, kept: Sequence[int], reward: float, right: float) -> None:
        """Log this generation's figures, and the dropped tokens of all so far. `alive` (groups,) marks groups
        with a signal; `right` is the accuracy on the sampler's groups, whose difficulty does not change.
        """
        used = float(alive[kept].sum())
        metrics = {"groups_made": len(alive), "groups_used": used, "signal": alive.mean(), "reward": reward}
        metrics["sampler_right_rate"] = right
        for name, value in metrics.items():
            self._metrics["train"][f"dynamic_sampling/{name}"].append(float(value))
        self._metrics["train"]["dynamic_sampling/dropped_tokens"] = [self.made["dropped_tokens"]]


def enough_bundles(args: Any, bundles: int) -> list[Check]:
    """Red if a generation would need more groups than there are bundles."""
    used = args.generation_batch_size // args.num_generations
    made = args.oversampling_factor * used
    says = f"{made} groups are made for {used}, of {bundles} bundles"
    remedy = "" if made <= bundles else "; lower oversampling_factor, or bundle more problems"
    return [Check("dynamic sampling", made <= bundles, says + remedy)]
