"""Where a training resumes: at the newest complete checkpoint of its folder."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from transformers import Trainer

from a2r_train.errors import InputError

log = logging.getLogger(__name__)


def last_checkpoint(folder: str) -> str | None:
    """The newest complete checkpoint (its trainer_state.json is written last), or None."""
    states = filter(is_complete, Path(folder).glob("checkpoint-*/trainer_state.json"))
    newest = max(states, key=lambda path: int(path.parent.name.rpartition("-")[2]), default=None)
    return str(newest.parent) if newest else None


def is_complete(state: Path) -> bool:
    """Whether a trainer_state.json was written whole."""
    try:
        return "global_step" in json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def check_processes(checkpoint: Path, processes: int, save_on_each_node: bool) -> None:
    """Raise InputError for a checkpoint of more or fewer processes: a step would be another, silently.

    Each process keeps the state of its random numbers there. With `save_on_each_node` a machine has a
    folder of its own, which may hold the states of its processes alone.
    """
    saved = len(list(checkpoint.glob("rng_state*.pth")))
    known = {processes}
    if save_on_each_node:
        known.add(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if saved and saved not in known:
        raise InputError(
            f"{checkpoint}: saved by {saved} processes, and {processes} would go on, with steps of another "
            "size; start as many, or name the checkpoint by resume_from_checkpoint if you mean it"
        )


def where_to_begin(trainer: Trainer) -> str | None:
    """The checkpoint that the recipe names, else the newest of the folder; None at the start."""
    if checkpoint := trainer.args.resume_from_checkpoint:
        return str(checkpoint)
    if newest := last_checkpoint(str(trainer.args.output_dir)):
        log.info("resuming from %s", newest)
    return newest


def load_best(trainer: Trainer) -> None:
    """Load the best checkpoint, as at the end of a training.

    The folder may have been moved since, and its checkpoints know where it was.
    """
    here = Path(str(trainer.args.output_dir)) / f"checkpoint-{trainer.state.best_global_step}"
    if here.is_dir():
        trainer.state.best_model_checkpoint = str(here)
    if trainer.state.best_model_checkpoint:
        trainer._load_best_model()


def remove_half_written(folder: str) -> None:
    """Delete what a full disk left of a checkpoint."""
    for checkpoint in Path(folder).glob("checkpoint-*"):
        if not (checkpoint / "trainer_state.json").exists():
            shutil.rmtree(checkpoint)
