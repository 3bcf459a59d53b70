"""Warnings when a GRPO training goes wrong in a way that its reward does not show; each is given once."""

from __future__ import annotations

import logging
import math
from collections import defaultdict, deque
from collections.abc import Mapping
from itertools import pairwise
from statistics import fmean
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)

SHORT = 1 / 3  # of the length of the first answers
MOSTLY_DEAD = 0.6  # share of groups without signal
HALF = 0.5  # share of the completions
MOST_PASSES = 4  # times that a bundle is trained on
MANY = 0.1  # share of the bundles
LOGS = 3  # logging steps to average over, because a single step is noisy

MOST_AHEAD = 0.2  # of accuracy, that training may gain over validation
MOST_ERRORS = 3  # the same in standard errors of the gain, because steps may be of few groups
LEAST_ODDS = 0.01  # 0 and 1 count as this far from themselves, because their odds have no logarithm

NEARLY = 0.05  # this close to 0 or 1, the choice of problems does not help

LENGTH, DEAD, CUT = "completions/length_ratio", "frac_reward_zero_std", "completions/clipped_ratio"
RIGHT, UNREAD = "right_rate", "unparsable_rate"  # of all completions, as the verified reward counts them
HELD_OUT = "eval_right_rate"
OF_SAMPLER = "dynamic_sampling/sampler_right_rate"  # which problems are drawn changes with the pass rates
OFTEN = (
    "dynamic_sampling/often_trained"  # share of the bundles so far, trained on more than MOST_PASSES times
)


class Watch(TrainerCallback):
    """Warns from the main process, and says what can be done."""

    def __init__(self) -> None:
        self.said: set[str] = set()
        self.seen: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LOGS))
        self.rates: list[float] = []  # accuracy in training, of each logging step
        self.evaluations: list[tuple[int, float]] = []  # how many of them came before, and the accuracy
        self.often = math.nan  # share of the bundles trained on too often; known with dynamic sampling only

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A resumed training keeps its earlier baseline; a new one would be measured after memorising."""
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
            self.rates.append(float(logs.get(OF_SAMPLER, self.seen[RIGHT][-1])))
            self.often = float(logs.get(OFTEN, math.nan))
        if HELD_OUT in logs:
            self.evaluations.append((len(self.rates), float(logs[HELD_OUT])))

    def warnings(self, args: Any, state: TrainerState) -> dict[str, str]:
        """What has gone wrong so far, by kind."""
        found = {}
        if (ratio := self._mean(LENGTH, 1.0)) < SHORT:
            found["length"] = (
                f"answers are down to {ratio:.0%} of their first length; the model may forget how to solve: "
                "show only answers (reference: answer in the prompt), or keep the best validation step "
                "(load_best_model_at_end)"
            )
        if (dead := self._mean(DEAD, 0.0)) > MOSTLY_DEAD:
            found["dead"] = f"{dead:.0%} of the groups have no signal; {self._remedy(args)}"
        remedy = "bundle more problems, or stop earlier"
        if self.often > MANY:
            found["passes"] = (
                f"{self.often:.0%} of the bundles were trained on more than {MOST_PASSES} times; {remedy}"
            )
        elif math.isnan(self.often) and (passes := (state.epoch or 0) * args.num_iterations) > MOST_PASSES:
            found["passes"] = f"each bundle was trained on {passes:.1f} times; {remedy}"
        if memorised := self._memorised():
            found["memorised"] = memorised
        return found

    def _memorised(self) -> str:
        """The warning if, since the first evaluation, accuracy rose far more in training than in validation,
        and more than noise explains; otherwise "".

        Validation may be easier or harder than training. So training's gain counts as what the same step in
        log-odds would bring in validation, if that is less. Near 0 and 1 both can gain little.
        """
        if len(self.evaluations) < 2 or self.evaluations[-1][0] < LOGS:
            return ""
        (first, held_out_before), (last, held_out) = self.evaluations[0], self.evaluations[-1]
        before, now = (fmean(self.rates[end - LOGS : end]) for end in (max(first, LOGS), last))
        carried_over = _accuracy(_log_odds(held_out_before) + _log_odds(now) - _log_odds(before))
        in_training, in_validation = now - before, held_out - held_out_before
        ahead = min(in_training, carried_over - held_out_before) - max(in_validation, 0.0)
        between = fmean((later - earlier) ** 2 for earlier, later in pairwise(self.rates))  # twice a variance
        if ahead <= max(MOST_AHEAD, MOST_ERRORS * math.sqrt(between / LOGS)):
            return ""
        return (
            f"accuracy rose by {100 * in_training:.0f} points in training, and by "
            f"{100 * in_validation:.0f} in validation: the training problems are memorised; "
            "bundle more problems, stop earlier, or lower learning_rate"
        )

    def _remedy(self, args: Any) -> str:
        """What would restore the signal: it depends on whether answers are right, and whether they can be
        read.
        """
        right, cut, unread = self._mean(RIGHT, 0.5), self._mean(CUT, 0.0), self._mean(UNREAD, 0.0)
        if right > 1 - NEARLY:
            return f"{right:.1%} of the answers are right: bundle harder problems"
        if right >= NEARLY:
            factor = args.oversampling_factor + 1
            return (
                "bundle problems of medium difficulty, show only answers (reference: answer in the prompt), "
                f"or set oversampling_factor: {factor}"
            )
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


def _log_odds(accuracy: float) -> float:
    inside = min(max(accuracy, LEAST_ODDS), 1 - LEAST_ODDS)
    return math.log(inside / (1 - inside))


def _accuracy(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
