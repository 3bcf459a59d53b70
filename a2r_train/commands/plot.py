"""`a2r plot`: the curves of a training run, from the trainer's own local file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2r_train.errors import InputError
from a2r_train.evaluate.report.plots import COLOURS, save_png
from a2r_train.output import checkpoints

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = list[tuple[float, float]]  # step, value
PANELS = {
    "reward": ("reward", "new_correct_rate", "copy_rate"),
    "reward by number of correct references": ("reward/n_correct=",),
    "share of groups without any difference in reward": ("frac_reward_zero_std",),
    "length of completions in tokens": (
        "completions/mean_length",
        "completions/min_length",
        "completions/max_length",
    ),
    "entropy": ("entropy",),
    "loss": ("loss", "eval_loss"),
    "accuracy of tokens": ("mean_token_accuracy",),
}


def plot(run: str) -> Path:
    """Draw curves.png into the run's folder and return its path.

    Raises InputError for a folder without a trainer's state.
    """
    panels = {title: lines for title, keys in PANELS.items() if (lines := curves(history(run), keys))}
    if not panels:
        raise InputError(
            f"{run}: its trainer_state.json has logged nothing yet; wait for the first logging_steps"
        )

    def draw(figure: Figure) -> None:
        for axes, (title, lines) in zip(
            figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True
        ):
            for at, (name, curve) in enumerate(lines.items()):
                axes.plot(*zip(*curve, strict=True), marker=".", color=COLOURS[at % len(COLOURS)], label=name)
            axes.set_title(title, fontsize="medium")
            axes.set_xlabel("step")
            if len(lines) > 1:
                axes.legend(fontsize="x-small")

    path = Path(run) / "curves.png"
    save_png(path, (7.0, 2.6 * len(panels)), draw)
    return path


def history(run: str) -> list[dict[str, Any]]:
    """What the trainer logged; during a run, as of its last checkpoint."""
    folders = (Path(run), *reversed(checkpoints(run)))
    found = [path for folder in folders if (path := folder / "trainer_state.json").is_file()]
    if not found:
        raise InputError(f"{run}: no trainer_state.json here; expected the output folder of sft or grpo")
    return list(json.loads(found[0].read_text(encoding="utf-8"))["log_history"])


def curves(log: list[dict[str, Any]], keys: tuple[str, ...]) -> dict[str, Curve]:
    """The logged values of each key, and of all that begin with a key ending in `=`."""
    logged = dict.fromkeys(name for entry in log for name in sorted(entry))
    names = [n for key in keys for n in logged if n == key or (key.endswith("=") and n.startswith(key))]
    return {
        n.rpartition("/")[2]: [(float(e["step"]), float(e[n])) for e in log if n in e and "step" in e]
        for n in names
    }
