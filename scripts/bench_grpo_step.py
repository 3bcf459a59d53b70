"""Real GRPO steps by a recipe, dense and with `shared_prefix` by turns: the median step, and its parts.

    python scripts/bench_grpo_step.py recipes/tiny/grpo.yaml --model_name_or_path M --bundles B [any option of
    the recipe]

On a CPU the processor's time is counted, which other programs do not disturb.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure_memory import CUDA, own_clock
from trl import GRPOTrainer

from a2r_train.train import grpo


def timed(name: str, spent: dict[str, list[float]]) -> Callable[..., Any]:
    """GRPOTrainer's method of that name, which also notes its seconds."""
    method = getattr(GRPOTrainer, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        began = own_clock()
        result = method(*args, **kwargs)
        spent.setdefault(name, []).append(own_clock() - began)
        return result

    return run


def end_to_end(recipe: list[str], steps: int, rounds: int) -> None:
    """Train by a recipe, dense and shared by turns, and print a step's median: all of it, and without
    generation.
    """
    spent: dict[bool, dict[str, list[float]]] = {False: {}, True: {}}
    methods = {
        name: getattr(GRPOTrainer, name) for name in ("training_step", "_generate_and_score_completions")
    }
    ratios = []
    for i in range(2 * rounds):
        shared = bool(i % 2)
        for name in methods:
            setattr(GRPOTrainer, name, timed(name, spent[shared]))
        with tempfile.TemporaryDirectory() as folder:
            given = [
                "--output_dir",
                folder,
                "--max_steps",
                str(steps),
                "--logging_steps",
                "1",
                "--shared_prefix",
                str(shared),
            ]
            if grpo.main(["--config", *recipe, *given, *([] if CUDA else ["--use_cpu", "true"])]):
                raise SystemExit(2)
            log = json.loads((Path(folder) / "trainer_state.json").read_text())["log_history"]
        ratios += [
            entry["shared_prefix/token_ratio"] for entry in log if "shared_prefix/token_ratio" in entry
        ]
        for name, method in methods.items():
            setattr(GRPOTrainer, name, method)
    step = {shared: statistics.median(times["training_step"]) for shared, times in spent.items()}
    generation = {
        shared: statistics.median(times["_generate_and_score_completions"]) for shared, times in spent.items()
    }
    policy = {shared: step[shared] - generation[shared] for shared in step}
    for name, part in (
        ("step", step),
        ("of it generation and reward", generation),
        ("of it policy update", policy),
    ):
        print(
            f"{name}: dense {part[False]:.3f} s, shared {part[True]:.3f} "
            f"s, {part[False] / part[True]:.2f} times"
        )
    print(f"tokens: {statistics.mean(ratios):.2f} times fewer; medians of {steps * rounds} steps each")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="any further option goes to it")
    parser.add_argument("--steps", type=int, default=4, help="of each run")
    parser.add_argument("--rounds", type=int, default=2, help="runs, dense and shared each")
    given, rest = parser.parse_known_args()
    end_to_end([given.recipe, *rest], given.steps, given.rounds)


if __name__ == "__main__":
    main()
