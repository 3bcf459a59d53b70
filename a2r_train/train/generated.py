"""How much a GRPO training has generated: counted in its state, and matched by the no-reference control."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from a2r_train.errors import InputError
from a2r_train.output import DONE

log = logging.getLogger(__name__)

STATE = "a2r_train"  # key in the trainer's state, and so in each checkpoint, of what the next steps depend on
MOST_LONGER = 10  # at most this many times the steps of the matched run


def made_by(state: TrainerState) -> dict[str, Any]:
    """What was generated so far; changes to it are saved with the next checkpoint."""
    held: Any = state.stateful_callbacks
    found: dict[str, Any] = held.setdefault(STATE, {"generated_tokens": 0, "generations": 0})
    return found


@dataclass(frozen=True)
class Budget:
    """Optimizer steps and generated tokens of a finished training."""

    folder: str
    steps: int
    tokens: int


def budget_of(folder: str, max_steps: int) -> Budget:
    """Read a finished training.

    Raises InputError for anything else, and for a `max_steps` that differs from its number of steps.
    """
    state = Path(folder) / "trainer_state.json"
    if not (state.is_file() and (Path(folder) / DONE).is_file()):
        raise InputError(f"match_tokens_of: {folder} is not a finished training; run it first")
    found = json.loads(state.read_text(encoding="utf-8"))
    steps, made = int(found["global_step"]), (found.get("stateful_callbacks") or {}).get(STATE, {})
    if not (tokens := int(made.get("generated_tokens", 0))):
        raise InputError(
            f"match_tokens_of: {folder} did not count its tokens; name a GRPO run of this version"
        )
    if max_steps > 0 and max_steps != steps:
        raise InputError(
            f"max_steps is {max_steps}, but {folder}, whose tokens are matched, made {steps} steps; "
            "remove max_steps"
        )
    return Budget(folder, steps, tokens)


class MatchTokens(TrainerCallback):
    """Ends a training after as many steps as the matched one, or later, once it has generated as many tokens.

    A generation is trained on for `cycle_steps`, and the training ends only after a whole one. The trainer
    itself is given MOST_LONGER times the steps, because it must know the maximum in advance.
    """

    def __init__(self, budget: Budget, cycle_steps: int) -> None:
        self.budget, self.cycle_steps = budget, cycle_steps

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        state.max_steps = state.global_step if self._done(state) else self._expected(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not self._done(state):
            state.max_steps = self._expected(state)
            return
        state.max_steps = state.global_step
        control.should_training_stop = control.should_save = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not (state.is_world_process_zero and self._done(state)):
            return
        log.info("%s: %s", args.output_dir, self.budgets_in_words(state))
        if made_by(state)["generated_tokens"] < self.budget.tokens:
            log.warning(
                "%s: its tokens do not match even after %d times the steps, the most that are made",
                args.output_dir,
                MOST_LONGER,
            )

    def budgets_in_words(self, state: TrainerState) -> str:
        """Both budgets in words."""
        tokens = made_by(state)["generated_tokens"]
        return (
            f"{state.global_step} steps and {tokens} generated tokens; "
            f"{self.budget.folder} had {self.budget.steps} and {self.budget.tokens}"
        )

    def _done(self, state: TrainerState) -> bool:
        if state.global_step % self.cycle_steps or state.global_step < self.budget.steps:
            return False
        longest = state.global_step + self.cycle_steps > MOST_LONGER * self.budget.steps
        return longest or made_by(state)["generated_tokens"] >= self.budget.tokens

    def _expected(self, state: TrainerState) -> int:
        """Estimated steps of the whole training; beyond the next step, at which the trainer would otherwise
        end.
        """
        tokens = made_by(state)["generated_tokens"]
        needed = math.ceil(state.global_step * self.budget.tokens / tokens) if tokens else 0
        return max(self.budget.steps, needed, state.global_step + 2)
