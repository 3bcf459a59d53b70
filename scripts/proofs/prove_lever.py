"""Measure what a GRPO setting gains on data/tiny: the quickstart's stages with three seeds, in one table.

    python scripts/proofs/prove_lever.py off
    python scripts/proofs/prove_lever.py dynamic --grpo oversampling_factor=2 --control oversampling_factor=2
    python scripts/proofs/prove_lever.py k-4-16 --explore samples_per_problem=32 --bundle k=16 k_min=4 \
        --evaluate diagnostics=k k_sweep=4,8,16 --no_control
    python scripts/proofs/prove_lever.py unshown --no_control \
        --sft targets=runs/levers/rollouts-train/rollouts.jsonl

A setting is a name and the keys that it changes in each stage. With `--match` its control generates as many
tokens. Rollouts, bundles and SFT that a setting does not change are shared with the others, and all are
evaluated on the same bundles. A setting takes about ten minutes on 2 free cores, and can be resumed. The
table is runs/levers/table.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

log = logging.getLogger("prove_lever")

OUT = Path("runs/levers")
SEEDS = (0, 1, 2)
ROWS = {
    "base": "synthesizer/base",
    "vote": "maj@4",
    "SFT": "synthesizer/sft",
    "control": "synthesizer/no_references",
    "trained": "synthesizer/sft+grpo",
}


def stage(verb: str, recipe: str, *changes: str, **more: object) -> None:
    """Run one stage of recipes/tiny with some keys changed; a finished stage returns at once."""
    module = f"train.{verb}" if verb in ("sft", "grpo") else "cli"
    named = [] if module.startswith("train") else [verb]
    pairs = [change.split("=", 1) for change in changes] + [[key, str(value)] for key, value in more.items()]
    options = [text for key, value in pairs for text in (f"--{key}", value)]
    recipe = f"recipes/tiny/{recipe}.yaml"
    command = [sys.executable, "-m", f"a2r_train.{module}", *named, "--config", recipe, *options]
    subprocess.run(command, check=True)


def bundles(folder: Path, train: Path, changes: list[str]) -> Path:
    """Write bundles of these rollouts and of the shared test rollouts; returns the folder."""
    given = {"rollouts": train / "rollouts.jsonl", "test_rollouts": OUT / "rollouts-test/rollouts.jsonl"}
    stage("bundle", "bundle", *changes, output_dir=folder, **given)
    return folder


def prepared(args: argparse.Namespace) -> tuple[Path, Path]:
    """The bundles that the setting trains on (its own if it changes them), and those that all settings are
    evaluated on.
    """
    stage("explore", "explore-test", output_dir=OUT / "rollouts-test")
    stage("explore", "explore-train", output_dir=OUT / "rollouts-train")
    shared = bundles(OUT / "bundles", OUT / "rollouts-train", [])
    train = OUT / "rollouts-train"
    if args.explore:
        train = OUT / f"rollouts-{'-'.join(args.explore).replace('=', '-')}"
        stage("explore", "explore-train", *args.explore, output_dir=train)
    if args.explore or args.bundle:
        return bundles(OUT / args.name / "bundles", train, args.bundle), shared
    return shared, shared


def run(args: argparse.Namespace, seed: int) -> None:
    """SFT, GRPO, control and evaluation of one seed, in OUT/NAME/seed-SEED."""
    (trained, shared), own = prepared(args), OUT / args.name / f"seed-{seed}"
    sft = (own if args.explore or args.bundle or args.sft else OUT) / f"sft-{seed}"
    given = {"bundles": trained / "train.jsonl", "seed": seed}
    stage("sft", "sft", *args.sft, output_dir=sft, **given)
    steps = {"logging_steps": 1, **given}
    stage("grpo", "grpo", *args.grpo, model_name_or_path=sft, output_dir=own / "grpo", **steps)
    match = [f"match_tokens_of={own / 'grpo'}"] if args.match else []
    if not args.no_control:
        stage("grpo", "grpo-no-references", *args.control, *match, output_dir=own / "control", **steps)
    stage(
        "evaluate",
        "evaluate",
        *args.evaluate,
        bundles=shared / "test.jsonl",
        rollouts=OUT / "rollouts-test/rollouts.jsonl",
        output_dir=own / "evaluation",
        temperature=0,
        explorer="",
        sft=sft,
        grpo=own / "grpo",
        no_references="" if args.no_control else own / "control",
    )


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """The logged steps of a run: groups made, groups with a signal (made and used), and tokens."""
    rows = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    found, used = [], 8
    for row in (row for row in rows if "loss" in row):
        made = row.get("dynamic_sampling/groups_made", used)
        dead = row["frac_reward_zero_std"]
        signal = row.get("dynamic_sampling/signal", 1 - dead)
        tokens = row["completions/mean_length"] * made * 8
        found.append({"made": made, "signal": signal * made, "live": (1 - dead) * used, "tokens": tokens})
    return found


def sums(steps: list[dict[str, Any]], most: float) -> dict[str, float]:
    """Totals over the steps, up to `most` generated tokens."""
    total = dict.fromkeys(("made", "signal", "live", "tokens", "steps"), 0.0)
    for step in steps:
        if total["tokens"] + step["tokens"] > most * 1.0001:
            break
        for key in total:
            total[key] += step.get(key, 1)
    return total


def table() -> str:
    """One line per setting and seed, with greedy accuracies in %."""
    folders = sorted(
        path.parent for path in OUT.glob("*/seed-*/evaluation") if (path / "results.json").exists()
    )
    all_steps = {folder: steps_of(folder / "grpo") for folder in folders}
    totals = {folder: sums(steps, float("inf")) for folder, steps in all_steps.items()}
    head = ["setting", "seed", *ROWS, "steps", "control's", "tokens", "control's", "dead of made", "of used"]
    head += ["at equal tokens: steps", "live groups", "dead of used", "trained, by k"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for folder in folders:
        results = json.loads((folder / "evaluation/results.json").read_text())
        right = {row["name"]: f"{100 * row['accuracy']:.1f}" for row in results["rows"]}
        sweep = results["diagnostics"].get("k_sweep", [])
        same = [total["tokens"] for other, total in totals.items() if other.name == folder.name]
        whole, control = totals[folder], folder / "control"
        controls = sums(steps_of(control) if control.exists() else [], float("inf"))
        equal = sums(all_steps[folder], min(same))
        cells = [folder.parent.name, folder.name[-1], *(right.get(name, "") for name in ROWS.values())]
        cells += [f"{whole['steps']:.0f}", f"{controls['steps']:.0f}"]
        cells += [f"{one['tokens'] / 1000:.0f}k" for one in (whole, controls)]
        cells += [
            f"{1 - whole['signal'] / whole['made']:.0%}",
            f"{1 - whole['live'] / whole['steps'] / 8:.0%}",
        ]
        cells += [
            f"{equal['steps']:.0f}",
            f"{equal['live']:.0f}",
            f"{1 - equal['live'] / equal['steps'] / 8:.0%}",
            ", ".join(f"{one['k']}: {100 * one['accuracy']:.1f}" for one in sweep),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="name of the setting, and of its folder below runs/levers")
    for option in ("--explore", "--bundle", "--sft", "--grpo", "--control", "--evaluate"):
        parser.add_argument(option, nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--match", action="store_true", help="let the control generate as many tokens")
    parser.add_argument("--no_control", action="store_true", help="skip the training without references")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for seed in args.seeds:
        run(args, seed)
        (OUT / "table.md").write_text(table() + "\n")
        log.info("%s\n", table())


if __name__ == "__main__":
    main()
