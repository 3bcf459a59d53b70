"""Weights, loss or gradient that are not finite end a training before anything of them is saved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from a2r_train.errors import InputError

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)  # quantised weights are integers, and always finite


class NotFinite(Exception):
    """A training went wrong; the message says at which step, and what is not finite."""


class StopOnNotFinite(TrainerCallback):
    """Raises NotFinite on all processes, once one of them has such a value; the trainer saves after these events, or never.

    The logged values alone would not do: not every step is logged, and transformers leaves a loss that is NaN out of the mean.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:  # noqa: ARG002
        if self._anywhere(not_finite(given["model"].parameters())):
            where, mend = "the model", "name another model_name_or_path"
            if state.global_step:
                where, mend = f"checkpoint-{state.global_step}", "remove it, and the same command goes on from an older one"
            raise InputError(f"{args.output_dir}: the weights of {where} are not finite before any step; {mend}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:  # noqa: ARG002
        if self._anywhere(not_finite(p for p in given["model"].parameters() if p.requires_grad)):
            raise NotFinite(f"step {state.global_step}: the weights are not finite")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:  # noqa: ARG002
        # with fp16 a gradient may overflow: that step is skipped, and the next is taken at a smaller scale
        names = ("loss",) if args.fp16 else ("loss", "grad_norm")
        for name in names:
            if name in given["logs"] and self._anywhere(torch.tensor(not math.isfinite(given["logs"][name]))):
                raise NotFinite(f"step {state.global_step}: {name} is not finite")

    def _anywhere(self, found: torch.Tensor) -> bool:
        """Whether it is true in any process; the only wait for the device."""
        summed: Any = self.accelerator.reduce(found.to(self.accelerator.device, torch.float32), "sum")
        return bool(summed.item() > 0)


@torch.no_grad()
def not_finite(parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
    """Whether any value is not, of those that this process holds; a tensor on their device, so that nothing waits for it."""
    held = [local for p in parameters if (local := _local(p)).dtype in _DTYPES and local.numel() and not local.is_meta]
    if not held:
        return torch.tensor(False)
    norms = torch._foreach_norm(held, 2, dtype=torch.float32)  # float16 would overflow
    return ~torch.stack([norm.to(norms[0].device) for norm in norms]).isfinite().all()


def _local(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The part of this process: under ZeRO-3 the parameter itself is empty between its uses, and under FSDP2 a DTensor."""
    part: torch.Tensor = getattr(parameter, "ds_tensor", parameter)
    return part.to_local() if isinstance(part, DTensor) else part
