"""Callbacks that watch a training: for signals, for values that are not finite, and the recipe's own."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from a2r_train import output, process
from a2r_train.config import load_dotted
from a2r_train.errors import InputError


def callbacks_of(paths: Sequence[str]) -> list[TrainerCallback]:
    """The recipe's own callbacks, from classes or objects. Raises InputError for anything else."""
    callbacks = []
    for path in paths:
        named = load_dotted(path, "callbacks")
        callback = named() if isinstance(named, type) else named
        if not isinstance(callback, TrainerCallback):
            raise InputError(f"callbacks {path!r}: a {type(callback).__name__}; expected a TrainerCallback")
        callbacks.append(callback)
    return callbacks


class AlreadyTrained(Exception):
    """The run would resume from the checkpoint of its last step, and transformers would take one more."""


class StopOnSignal(TrainerCallback):
    """Saves and stops at the end of the step, on all processes once one of them has got the signal.

    The caller restores the handlers. A second Ctrl-C ends the process at once. With GRPO the step is the last
    of `cycle_steps`, the steps trained on one generation: a run resumes only from there. (transformers' own
    `enable_jit_checkpoint` saves within a step, and each process on its own.)
    """

    def __init__(self, accelerator: Accelerator, cycle_steps: int = 1) -> None:
        self.accelerator, self.cycle_steps = accelerator, cycle_steps
        self.stopped = False
        self.received: list[signal.Signals] = []
        self._before: dict[signal.Signals, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if 0 < state.max_steps <= state.global_step:
            raise AlreadyTrained
        self._before = {number: signal.signal(number, self._receive) for number in process.listened_to()}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.received:
            self.accelerator.set_trigger()
        if state.global_step % self.cycle_steps == 0 and self.accelerator.check_trigger():
            control.should_save = control.should_training_stop = self.stopped = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            output.share(f"{args.output_dir}/checkpoint-{state.global_step}")
        if self.stopped:
            # otherwise transformers would load the best one now, and with save_total_limit 1 remove this one
            state.best_model_checkpoint = None

    def restore(self) -> None:
        """Give the signals back to whoever had them; also where a training fails, as in a notebook."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        received, handler = signal.Signals(number), self._before[signal.Signals(number)]
        if received == signal.SIGINT and received in self.received and callable(handler):
            handler(number, frame)
        self.received.append(received)


_DTYPES = (torch.float16, torch.bfloat16, torch.float32)  # quantised weights are integers, so always finite


class NotFinite(Exception):
    """The training diverged; the message says at which step, and what is not finite."""


class StopOnNotFinite(TrainerCallback):
    """Raises NotFinite on all processes once one of them has such a value; the trainer saves only after these
    events.

    The logged values alone would not do: not every step is logged, and transformers leaves a NaN loss out of
    the mean.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **event: Any
    ) -> None:
        if self._anywhere(not_finite(event["model"].parameters())):
            where, remedy = "the model", "name another model_name_or_path"
            if state.global_step:
                where = f"checkpoint-{state.global_step}"
                remedy = "remove it, and the same command goes on from an older one"
            raise InputError(
                f"{args.output_dir}: the weights of {where} are not finite before any step; {remedy}"
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **event: Any
    ) -> None:
        if self._anywhere(not_finite(p for p in event["model"].parameters() if p.requires_grad)):
            raise NotFinite(f"step {state.global_step}: the weights are not finite")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **event: Any
    ) -> None:
        # with fp16 a gradient may overflow: that step is skipped, and the next one uses a smaller scale
        names = ("loss",) if args.fp16 else ("loss", "grad_norm")
        for name in names:
            value = event["logs"].get(name, 0.0)
            if name in event["logs"] and self._anywhere(torch.tensor(not math.isfinite(value))):
                raise NotFinite(f"step {state.global_step}: {name} is not finite")

    def _anywhere(self, true_here: torch.Tensor) -> bool:
        """Whether it is true in any process; the only point that waits for the device."""
        summed: Any = self.accelerator.reduce(true_here.to(self.accelerator.device, torch.float32), "sum")
        return bool(summed.item() > 0)


@torch.no_grad()
def not_finite(parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
    """Whether any value that this process holds is not finite; a tensor on the same device, so that nothing
    waits for it.
    """
    held = [
        local
        for p in parameters
        if (local := _local(p)).dtype in _DTYPES and local.numel() and not local.is_meta
    ]
    if not held:
        return torch.tensor(False)
    norms = torch._foreach_norm(held, 2, dtype=torch.float32)  # float16 would overflow
    return ~torch.stack([norm.to(norms[0].device) for norm in norms]).isfinite().all()


def _local(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The part that this process holds: under ZeRO-3 the parameter itself is empty between uses, and under
    FSDP2 it is a DTensor.
    """
    part: torch.Tensor = getattr(parameter, "ds_tensor", parameter)
    return part.to_local() if isinstance(part, DTensor) else part
