"""Run a script under FSDP2 on the CPU, where accelerate would fall back to plain data parallel though torch
can do it.

accelerate launch --config_file accelerate_configs/fsdp2.yaml --num_processes 2 tests/fsdp_on_cpu.py SCRIPT
[arguments]
"""

import os
import runpy
import sys

from accelerate.state import PartialState
from accelerate.utils import DistributedType


def several_gpus_on_gloo(*_: object, **__: object) -> tuple[str, DistributedType]:
    return "gloo", DistributedType.MULTI_GPU


if __name__ == "__main__":
    os.environ |= {"ACCELERATE_TORCH_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    PartialState._prepare_backend = several_gpus_on_gloo  # type: ignore[method-assign, assignment]
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
