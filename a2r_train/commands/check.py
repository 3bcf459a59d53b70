"""`a2r check`: the preflight of a training recipe, one line per check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2r_train.commands.run import TRAINERS
from a2r_train.errors import InputError


def check(arguments: Sequence[str]) -> int:
    """Print the preflight of `--config sft*.yaml` or `grpo*.yaml`; returns the exit status, 2 if a check is
    red.

    Raises InputError for another recipe, and if its data or model cannot be read.
    """
    from rich.console import Console
    from rich.markup import escape

    from a2r_train.config import parse, take_config
    from a2r_train.train import grpo, sft

    path, _ = take_config(arguments)
    verb = Path(path).stem.removeprefix("panel-").partition("-")[0]
    if verb not in TRAINERS:
        raise InputError(
            f"check: {path or 'no --config'}; expected a recipe whose name begins with "
            f"{' or '.join(TRAINERS)}"
        )
    trainer: Any = {"sft": sft, "grpo": grpo}[verb]
    checks = trainer.checks(*parse(trainer.ARGUMENTS, arguments))
    console = Console(soft_wrap=True)
    for one in checks:
        console.print(f"[{one.color}]{one.color:6}[/]  {one.name}: {escape(one.detail)}", highlight=False)
    return 0 if all(one.passed for one in checks) else 2
