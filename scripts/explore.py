"""Stage 1 in several processes: each samples its share of the chunks with its own engine, and the last to
finish joins them.

    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 8 \\
        scripts/explore.py --config RECIPE

On several machines without a launcher: `a2r explore --shard i/n` on each, then `a2r gather`.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import torch
from accelerate import PartialState

from a2r_train import process
from a2r_train.config import parse
from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.errors import InputError
from a2r_train.process import leave


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return process.run(lambda: together(*parse([ExploreConfig], argv)))


def together(config: ExploreConfig) -> None:
    """Explore with the other processes. Raises InputError for a config that sets a shard."""
    # the default timeout, ten minutes, is too short for the first process to wait for the slowest
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    if config.shard != "0/1":
        raise InputError(
            f"shard is {config.shard}; remove the key: the launched processes divide the chunks themselves"
        )
    explore(replace(config, shard=f"{state.process_index}/{state.num_processes}"))
    state.wait_for_everyone()
    if state.is_main_process:
        sys.stdout.write(
            f"{explore(config)}\n"
        )  # all chunks exist; joins them, unless the last process already did
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    leave(main)
