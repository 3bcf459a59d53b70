"""SIGTERM or Ctrl-C while training: finish the step, save, and end; and no step beyond the last one."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from a2r_train import output


class AlreadyTrained(Exception):
    """The checkpoint that a run goes on from is that of its last step; transformers would take one more."""


class StopOnSignal(TrainerCallback):
    """Saves and stops at the end of the step, on all processes once one of them got the signal.

    A second Ctrl-C ends the process at once.
    With GRPO the step is the last of `cycle_steps`, in which one generation is trained on: a run resumes only from there.
    (transformers' own `enable_jit_checkpoint` saves within a step, and each process by itself.)
    """

    def __init__(self, accelerator: Accelerator, cycle_steps: int = 1) -> None:
        self.accelerator, self.cycle_steps = accelerator, cycle_steps
        self.stopped = False
        self.received: list[signal.Signals] = []
        self._before: dict[signal.Signals, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        if 0 < state.max_steps <= state.global_step:
            raise AlreadyTrained
        self._before = {number: signal.signal(number, self._receive) for number in output.listened_to()}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        if self.received:
            self.accelerator.set_trigger()
        if state.global_step % self.cycle_steps == 0 and self.accelerator.check_trigger():
            control.should_save = control.should_training_stop = self.stopped = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero:
            output.share(f"{args.output_dir}/checkpoint-{state.global_step}")
        if self.stopped:  # else transformers loads the best one now, and with save_total_limit 1 removes this one
            state.best_model_checkpoint = None

    def on_train_end(self, *_: Any, **__: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        received, handler = signal.Signals(number), self._before[signal.Signals(number)]
        if received == signal.SIGINT and received in self.received and callable(handler):
            handler(number, frame)
        self.received.append(received)
