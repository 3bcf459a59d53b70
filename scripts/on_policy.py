"""References from the current explorer: every few steps of GRPO, new bundles are made, and the training of
explorer and synthesizer continues.

    python scripts/on_policy.py --recipes recipes/tiny --synthesizer data/tiny/synthesizer \\
        --output runs/tiny-on-policy

In each round, the explorer solves the problems and its rollouts become bundles. On these, the explorer is
trained for pass@k without references (panel-grpo-explorer.yaml), and the synthesizer with references
(grpo.yaml). The next round starts from both (ParaGator, arXiv 2603.18886). With `--freeze_explorer` only the
synthesizer is trained, on new samples of the same explorer in each round. Finished stages are skipped, so a
stopped run can be resumed. Each round starts with a new optimizer.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from a2r_train.commands import run as pipeline

Stage = Callable[[str, Path, Mapping[str, Any]], None]


def run(verb: str, recipe: Path, options: Mapping[str, Any]) -> None:
    """Run a stage in its own process, as `a2r run` does. If it fails, exit with its status."""
    given = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    if code := pipeline.wait([*pipeline.command(verb, recipe), *given]):
        sys.exit(code)


def one_round(number: int, models: dict[str, str], given: argparse.Namespace, stage: Stage) -> dict[str, str]:
    """Run one round and return its models."""
    recipes, folder = Path(given.recipes), Path(given.output) / f"round-{number}"
    rollouts, bundles = folder / "rollouts", folder / "bundles"
    explore, bundle = recipes / "explore-train.yaml", recipes / "bundle.yaml"
    stage("explore", explore, {"model": models["explorer"], "output_dir": rollouts, "seed": number})
    own = {
        "rollouts": rollouts / "rollouts.jsonl",
        "test_rollouts": "",
        "test_problems": "",
        "output_dir": bundles,
    }
    stage("bundle", bundle, own)
    after = dict(models)
    for role, recipe in (("explorer", "panel-grpo-explorer.yaml"), ("synthesizer", "grpo.yaml")):
        if role == "explorer" and given.freeze_explorer:
            continue
        after[role] = str(folder / role)
        options = {
            "model_name_or_path": models[role],
            "bundles": bundles / "train.jsonl",
            "output_dir": after[role],
        }
        stage(
            "grpo",
            recipes / recipe,
            {**options, "max_steps": given.steps, "save_steps": given.steps, "seed": number},
        )
    return after


def main(argv: list[str] | None = None, stage: Stage = run) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", default="recipes/tiny")
    parser.add_argument("--explorer", default="data/tiny/explorer", help="the model of the first round")
    parser.add_argument("--synthesizer", default="runs/tiny/sft", help="the model of the first round")
    parser.add_argument("--output", default="runs/tiny-on-policy")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10, help="GRPO steps per round, for each of the two")
    parser.add_argument("--freeze_explorer", action="store_true")
    given = parser.parse_args(argv)
    models = {"explorer": given.explorer, "synthesizer": given.synthesizer}
    for number in range(given.rounds):
        models = one_round(number, models, given, stage)
    print("\n".join(f"{role}: {folder}" for role, folder in models.items()))


if __name__ == "__main__":
    main()
