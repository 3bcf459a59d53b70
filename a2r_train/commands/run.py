"""`a2r run`: the stages of a recipe folder, in order; a finished stage skips itself."""

from __future__ import annotations

import difflib
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from a2r_train import output, process
from a2r_train.config import TASK_FILE, TASK_KEYS, load_yaml
from a2r_train.errors import InputError
from a2r_train.paths import SHIPPED

log = logging.getLogger(__name__)

# Each stage runs in a process of its own, so that its memory is free when the next stage begins.
ORDER = ("merge", "explore", "bundle", "sft", "grpo", "evaluate")
TRAINERS = ("sft", "grpo")
ASIDE = ("panel", "pretrain", "probe", "grid")  # recipes that a folder may hold, but that `run` leaves out
MISSPELT = 0.75  # least similarity of a file's name to that of a stage which was probably meant


def run(folder: str, accelerate_config: str = "", processes: int = 0, dry_run: bool = False) -> None:
    """Run every stage that the folder has a YAML for; with `dry_run`, print which, and what would fail.

    Raises InputError for a folder without stages or with a recipe that would be left out because of its name,
    and if a dry run finds something. A stage that fails ends the run with its own exit status. SIGTERM and
    Ctrl-C are passed on to the stage, which may have to save, and no other stage is started.
    """
    accelerate_config = config_file(accelerate_config, processes)
    found = stages(folder)
    check_names(folder, found)
    if not found:
        raise InputError(_no_stage(folder))
    if dry_run:
        from a2r_train.commands.plan import show_plan

        show_plan(folder, found)
        return
    for verb, path in found:
        began, before = time.monotonic(), _done_at(path)
        if not before:  # a finished stage says so itself
            log.info("%s: %s", verb, path)
        if code := wait(command(verb, ["--config", str(path)], accelerate_config, processes)):
            sys.exit(code)
        if not before or _done_at(path) != before:
            log.info("%s: %.0f s", path, time.monotonic() - began)


def _done_at(recipe: Path) -> int:
    """When the stage of a recipe was done; 0 if it is not, or if only the stage can read the recipe."""
    try:
        folder = str(load_yaml(str(recipe)).get("output_dir") or "")
    except InputError:
        return 0
    return output.stamp(folder) if folder else 0


def _no_stage(folder: str) -> str:
    path = Path(folder)
    if not path.exists():
        return f"{folder}: no such folder; a2r init {folder} --data FILE --model MODEL makes one"
    if path.is_file():
        return f"{folder}: is a file; name the folder that holds the recipes, as in a2r run {path.parent}"
    return (
        f"{folder}: no stage here; expected merge.yaml, explore.yaml, bundle.yaml, sft.yaml, grpo.yaml or "
        "evaluate.yaml"
    )


def train(verb: str, arguments: Sequence[str], accelerate_config: str = "", processes: int = 0) -> int:
    """Run one trainer, as `run` does, with its own arguments; returns its exit status."""
    return wait(command(verb, arguments, config_file(accelerate_config, processes), processes))


def config_file(accelerate_config: str, processes: int) -> str:
    """The file of an accelerate config: a path, or the name of one in accelerate_configs.

    Raises InputError for a file that does not exist, and for processes without one.
    """
    if processes and not accelerate_config:
        raise InputError(
            "processes: name a launch config for them, as in --accelerate_config accelerate_configs/ddp.yaml"
        )
    shipped = SHIPPED / "accelerate_configs" / f"{accelerate_config}.yaml"
    if accelerate_config and not Path(accelerate_config).is_file():
        if not shipped.is_file():
            raise InputError(f"{accelerate_config}: no such file; expected an accelerate config")
        return str(shipped)
    return accelerate_config


def wait(command_line: Sequence[str]) -> int:
    """Run a stage's command, pass SIGTERM and Ctrl-C on to it, and return its exit status."""
    stage: subprocess.Popen[bytes] | None = None
    caught = list[int]()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        if stage:
            # also on Ctrl-C: the terminal has sent it to the stage, and a second one would end it unsaved
            stage.terminate()

    with process.handling_signals(pass_on):
        stage = subprocess.Popen(command_line, preexec_fn=process.ending_with_parent())
        if caught:  # before `stage` was assigned
            stage.terminate()
        code = stage.wait()
    if code < 0:  # ended by a signal before it handled any, or for lack of memory
        return 128 - code
    return code or (128 + caught[0] if caught else 0)


def stages(folder: str) -> list[tuple[str, Path]]:
    """(verb, recipe) in order: `merge.yaml` and `merge-NAME.yaml`, then explore, and so on. A training that
    matches the tokens of another comes after the others, which must have generated theirs.
    """
    return [
        (verb, path)
        for verb in ORDER
        for path in sorted(
            [*Path(folder).glob(f"{verb}.yaml"), *Path(folder).glob(f"{verb}-*.yaml")],
            key=lambda path: ("match_tokens_of" in _keys_of(path), path),
        )
    ]


def check_names(folder: str, found: Sequence[tuple[str, Path]]) -> None:
    """Raise InputError for a file that would be left out silently: a recipe, or a task, whose name is not
    read. Files that a recipe names, and those that are no recipes, may have any name.
    """
    known = {path for _, path in found}
    named = {str(value) for path in known for value in _values_of(path)}
    files = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
    for path in files:
        is_yaml = path.suffix.lower() in (".yaml", ".yml") and path.is_file()
        is_known = path in known or path.name == TASK_FILE or {path.name, str(path)} & named
        if not is_yaml or is_known or path.stem.partition("-")[0] in ASIDE:
            continue
        first, meant = _meant(path)
        if first in (*ORDER, "task") or {"output_dir"} & _keys_of(path) or _is_task(path, meant):
            remedy = f"rename it to {meant}" if meant else "name it STAGE-NAME.yaml, or move it elsewhere"
            raise InputError(f"{path}: a2r run would leave it out: its name is not that of a stage; {remedy}")


def _values_of(path: Path) -> list[object]:
    try:
        return list(load_yaml(str(path)).values())
    except InputError:  # told by the stage
        return []


def _keys_of(path: Path) -> set[object]:
    try:
        return {*load_yaml(str(path))}
    except InputError:  # such as a list, which is no recipe
        return set()


def _meant(path: Path) -> tuple[str, str]:
    """The first word of a file's name, and the name of the nearest stage or task; "" if none is near."""
    first, dash, rest = path.stem.lower().replace("_", "-").replace(" ", "-").partition("-")
    near = difflib.get_close_matches(first, (*ORDER, "task"), 1, MISSPELT)
    return first, f"{near[0]}{dash}{rest}.yaml" if near else ""


def _is_task(path: Path, meant: str) -> bool:
    return meant == TASK_FILE and bool(keys := _keys_of(path)) and keys <= {*TASK_KEYS}


def command(
    verb: str, arguments: Sequence[str], accelerate_config: str = "", processes: int = 0
) -> list[str]:
    """The command line of one stage; with an accelerate config, trainers go through `accelerate launch`.

    `processes` 0 leaves their number to that config. A trainer is started as a module. The scripts sft.py and
    grpo.py only call its `main`, and are missing if only the package is installed.
    """
    if verb not in TRAINERS:
        return [sys.executable, "-m", "a2r_train.cli", verb, *arguments]
    module = ["-m", f"a2r_train.train.{verb}", *arguments]
    if not accelerate_config:
        # one process needs no launcher, which would hide the exit status of a user's mistake
        return [sys.executable, *module]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", accelerate_config]
    return [*launch, *(["--num_processes", str(processes)] if processes else []), *module]
