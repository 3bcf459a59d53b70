"""Where a training resumes: at the newest complete checkpoint in its folder."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from transformers import Trainer

from a2r_train.errors import InputError
from a2r_train.output import checkpoints

log = logging.getLogger(__name__)


# What any way of training saves beside the weights; transformers would go on without all of it, with the
# first learning rate and a new optimizer.
STATES = ("optimizer*", "global_step*", "scheduler.pt", "rng_state*")


def last_checkpoint(folder: str) -> str | None:
    """The newest checkpoint that a training can go on from, or None."""
    return next((str(path) for path in reversed(checkpoints(folder)) if not lacks(path)), None)


def lacks(checkpoint: Path) -> str:
    """What a checkpoint lacks for a training to go on from it; "" if nothing.

    Its trainer_state.json is written last. With `save_only_model` it has weights alone.
    """
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        state = {}
    if "global_step" not in state:
        return "no trainer_state.json"
    if not any(True for pattern in STATES for _ in checkpoint.glob(pattern)):
        return "no optimizer, as with save_only_model"
    return ""


def check_processes(checkpoint: Path, processes: int, save_on_each_node: bool) -> None:
    """Raise InputError for a checkpoint of a different number of processes: the steps would silently change
    size.

    Each process stores the state of its random numbers there. With `save_on_each_node` each machine has its
    own folder, which may hold only the states of its own processes.
    """
    saved = len(list(checkpoint.glob("rng_state*.pth")))
    known = {processes}
    if save_on_each_node:
        known.add(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if saved and saved not in known:
        raise InputError(
            f"{checkpoint}: saved by {saved} processes, but {processes} would resume, with steps of another "
            f"size; start {saved}, or set resume_from_checkpoint to this checkpoint if you mean it"
        )


def where_to_begin(trainer: Trainer) -> str | None:
    """The checkpoint that the recipe names, else the newest in the folder; None at the start."""
    if checkpoint := trainer.args.resume_from_checkpoint:
        return str(checkpoint)
    if newest := last_checkpoint(str(trainer.args.output_dir)):
        log.info("resuming from %s", newest)
    return newest


def load_best(trainer: Trainer) -> None:
    """Load the best checkpoint, as at the end of a training.

    Checkpoints store where the folder was, and it may have been moved since.
    """
    here = Path(str(trainer.args.output_dir)) / f"checkpoint-{trainer.state.best_global_step}"
    if here.is_dir():
        trainer.state.best_model_checkpoint = str(here)
    if trainer.state.best_model_checkpoint:
        trainer._load_best_model()


def remove_half_written(folder: str) -> None:
    """Delete what a full disk left of a checkpoint."""
    for checkpoint in checkpoints(folder):
        if not (checkpoint / "trainer_state.json").exists():
            shutil.rmtree(checkpoint)
