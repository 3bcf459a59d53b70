"""What a training prints: one line per logging step; all metrics go to trainer_state.json and the
trackers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import IntervalStrategy
from transformers.utils.logging import disable_progress_bar

# What is shown, by the trainer's names; the loss is left out if there is a reward, because GRPO's loss is
# around 0 whatever is learnt.
SHOWN = {
    "loss": ("loss", "{:.4g}"),
    "reward": ("reward", "{:.3f}"),
    "completions/mean_length": ("length", "{:.0f}"),
    "frac_reward_zero_std": ("no signal in", "{:.0%} of groups"),
    "mean_token_accuracy": ("token accuracy", "{:.1%}"),
}

MADE = "dynamic_sampling/reward"  # over all groups that were generated


def show_progress(trainer: Trainer) -> None:
    """Print lines instead of transformers' progress bar and its dictionary of all metrics."""
    for other in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(other)
    trainer.add_callback(ProgressLines())
    disable_progress_bar()  # type: ignore[no-untyped-call]  # the bars of saving would appear between the lines


class ProgressLines(TrainerCallback):
    """Prints a line for each logging step, each evaluation and the end, from the main process."""

    def __init__(self) -> None:
        self.began, self.first_step = time.monotonic(), 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.began, self.first_step = time.monotonic(), state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The last step is always shown, even if the training has fewer steps than `logging_steps`."""
        if args.logging_strategy == IntervalStrategy.STEPS and state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if state.is_world_process_zero and (text := self.line(state, logs or {})):
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def line(self, state: TrainerState, logs: Mapping[str, Any]) -> str:
        """One line of at most 80 columns, with the metrics that are there; "" for other logs."""
        step = f"step {state.global_step:>{len(str(state.max_steps))}}/{state.max_steps}"
        seconds = time.monotonic() - self.began
        if "train_runtime" in logs:
            return f"{step}  trained in {clock(seconds)}"
        if any(name.startswith("eval_") for name in logs):
            evaluated = {name.removeprefix("eval_"): value for name, value in logs.items()}
            return f"{step}  validation: {shown(evaluated)}"
        if not (metrics := shown(logs)):
            return ""
        done = state.global_step - self.first_step
        left = seconds / done * (state.max_steps - state.global_step) if done else 0.0
        return f"{step}  {metrics}  {clock(left)} left" if done else f"{step}  {metrics}"


def shown(logs: Mapping[str, Any]) -> str:
    """The metrics that tell how a training is going."""
    if MADE in logs:  # the groups that were trained on were chosen by their rewards
        logs = {**logs, "reward": logs[MADE]}
    names = [name for name in SHOWN if name in logs and not (name == "loss" and "reward" in logs)]
    return "  ".join(f"{SHOWN[name][0]} {SHOWN[name][1].format(float(logs[name]))}" for name in names)


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
