"""Fine-tune a synthesizer on verified answers to its training bundles.

    accelerate launch scripts/sft.py --config recipes/tiny/sft.yaml [--key value ...] [--dry_run]

Several processes:

    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 2 scripts/sft.py ...

The code is in a2r_train/train/sft.py; `a2r run` starts the same `main` with `-m a2r_train.train.sft`.
"""

from a2r_train.process import leave
from a2r_train.train.sft import main

if __name__ == "__main__":
    leave(main)
