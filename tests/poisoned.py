"""Train with one weight made NaN by an optimizer step, in the last process alone: poisoned.py STAGE STEP
[arguments].
"""

import sys
from typing import Any

from accelerate import PartialState
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, trainer

from a2r_train.process import leave
from a2r_train.train import grpo, sft

MAIN = {"sft": sft.main, "grpo": grpo.main}


class Poison(TrainerCallback):
    """As a step whose gradient is NaN leaves the weights."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        if state.global_step == self.step - 1 and PartialState().is_last_process:
            weight = next(p for p in reversed([*given["model"].parameters()]) if p.requires_grad)
            held = getattr(weight, "ds_tensor", weight.data)
            (held.to_local() if isinstance(held, DTensor) else held).view(-1)[-1] = float("nan")


if __name__ == "__main__":
    trainer.DEFAULT_CALLBACKS.append(Poison(int(sys.argv[2])))
    leave(lambda: MAIN[sys.argv[1]](sys.argv[3:]))
