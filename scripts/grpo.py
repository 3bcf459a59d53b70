"""Train a synthesizer on its bundles by GRPO with a verifiable reward.

    accelerate launch scripts/grpo.py --config recipes/tiny/grpo.yaml [--key value ...] [--dry_run]

Several processes:

    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 2 scripts/grpo.py ...

The code is in a2r_train/train/grpo.py; `a2r run` starts the same `main` with `-m a2r_train.train.grpo`.
"""

from a2r_train.process import leave
from a2r_train.train.grpo import main

if __name__ == "__main__":
    leave(main)
