"""Warnings when a GRPO training goes wrong in a way that its reward does not show; each is given once."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)

SHORT = 1 / 3  # of the length of the first answers
MOSTLY_DEAD = 0.6  # share of groups without signal
HALF = 0.5  # share of the completions
MOST_PASSES = 4  # times that a bundle is trained on
LOGS = 3  # logging steps to average over, because a single step is noisy

MOST_AHEAD = 0.2  # of accuracy, that training may gain over validation

NEARLY = 0.05  # this close to 0 or 1, the choice of problems does not help

LENGTH, DEAD, CUT = "completions/length_ratio", "frac_reward_zero_std", "completions/clipped_ratio"
RIGHT, UNREAD = "right_rate", "unparsable_rate"  # of all completions, as the verified reward counts them
HELD_OUT = "eval_right_rate"


class Watch(TrainerCallback):
    """Warns from the main process, and says what can be done."""

    def __init__(self) -> None:
        self.said: set[str] = set()
        self.seen: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LOGS))
        self.first_right: float | None = None  # in training
        self.evaluations: list[tuple[float | None, float]] = []  # accuracy in training and in validation

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A resumed training goes on from what it logged before: a baseline of its own would be memorised
        already.
        """
        for logs in state.log_history:
            self._learn(logs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        self._learn(logs)
        for kind, warning in self.warnings(args, state).items():
            if kind not in self.said:
                log.warning("step %d: %s", state.global_step, warning)
            self.said.add(kind)

    def _learn(self, logs: Mapping[str, Any]) -> None:
        if DEAD in logs:
            for name, missing in ((LENGTH, 1.0), (DEAD, 1.0), (CUT, 0.0), (RIGHT, 0.5), (UNREAD, 0.0)):
                self.seen[name].append(float(logs.get(name, missing)))
        right = sum(self.seen[RIGHT]) / LOGS if len(self.seen[RIGHT]) == LOGS else None
        self.first_right = right if self.first_right is None else self.first_right
        if HELD_OUT in logs:
            self.evaluations.append((right, float(logs[HELD_OUT])))

    def warnings(self, args: Any, state: TrainerState) -> dict[str, str]:
        """What has gone wrong so far, by kind."""
        found = {}
        if (ratio := self._mean(LENGTH, 1.0)) < SHORT:
            found["length"] = (
                f"answers are down to {ratio:.0%} of their first length; the model may forget how to solve: "
                "keep the best validation step (load_best_model_at_end), or train with plain_share: 0.5"
            )
        if (dead := self._mean(DEAD, 0.0)) > MOSTLY_DEAD:
            found["dead"] = f"{dead:.0%} of the groups have no signal; {self._mend(args)}"
        if (passes := (state.epoch or 0) * args.num_iterations) > MOST_PASSES:
            found["passes"] = (
                f"each bundle was trained on {passes:.1f} times; bundle more problems, or stop earlier"
            )
        in_training, in_validation = self._gains()
        if in_training - in_validation > MOST_AHEAD:
            found["memorised"] = (
                f"accuracy rose by {100 * in_training:.0f} points in training, and by "
                f"{100 * in_validation:.0f} in validation: the training problems are memorised; "
                "bundle more problems, stop earlier, or lower learning_rate"
            )
        return found

    def _gains(self) -> tuple[float, float]:
        """The gain in accuracy since the first evaluation, in training and in validation."""
        if len(self.evaluations) < 2:
            return 0.0, 0.0
        (before, held_out_before), (now, held_out) = self.evaluations[0], self.evaluations[-1]
        before = self.first_right if before is None else before
        if before is None or now is None:
            return 0.0, 0.0
        return now - before, held_out - held_out_before

    def _mend(self, args: Any) -> str:
        """What would restore the signal: it depends on whether answers are right, and whether they can be
        read.
        """
        right, cut, unread = self._mean(RIGHT, 0.5), self._mean(CUT, 0.0), self._mean(UNREAD, 0.0)
        if right > 1 - NEARLY:
            return f"{right:.1%} of the answers are right: bundle harder problems"
        if right >= NEARLY:
            factor = args.oversampling_factor + 1
            return f"set oversampling_factor: {factor}, or bundle problems of medium difficulty"
        says = f"{right:.1%} of the answers are right"
        if cut > HALF:
            return f"{says}, and {cut:.0%} are cut: raise max_completion_length"
        if unread > HALF:
            return (
                f"{says}, and {unread:.0%} have no readable answer: correct the prompt, set "
                "`answer_pattern` in it, or begin with SFT"
            )
        return f"{says}: begin with SFT (`targets: references` needs no right sample), or use easier problems"

    def _mean(self, name: str, before: float) -> float:
        """The mean of the last values; `before` until there are enough."""
        seen = self.seen[name]
        return sum(seen) / LOGS if len(seen) == LOGS else before
