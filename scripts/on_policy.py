"""References from the current explorer: every few steps of GRPO the bundles are made anew, and explorer and
synthesizer go on.

    python scripts/on_policy.py --recipes recipes/tiny --synthesizer data/tiny/synthesizer \\
        --output runs/tiny-on-policy

A round is: the explorer solves the problems, its rollouts become bundles, it is trained on them for pass@k
without references (panel-grpo-explorer.yaml), and the synthesizer with them (grpo.yaml). The next round
begins with both (ParaGator, arXiv 2603.18886). `--freeze_explorer` trains the synthesizer alone, on new
samples of the same explorer each round. A stage that is done is skipped, so a run that was stopped goes on;
each round's optimizer begins anew.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from a2r_train.commands import run as pipeline

Stage = Callable[[str, Path, Mapping[str, Any]], None]


def run(verb: str, recipe: Path, options: Mapping[str, Any]) -> None:
    """One stage as a process of its own, as in `a2r run`; its exit status ends the whole if it is not 0."""
    given = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    if code := pipeline.wait([*pipeline.command(verb, recipe), *given]):
        sys.exit(code)


def one_round(number: int, models: dict[str, str], given: argparse.Namespace, stage: Stage) -> dict[str, str]:
    """Returns the models after the round."""
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
    parser.add_argument("--explorer", default="data/tiny/explorer", help="of the first round")
    parser.add_argument("--synthesizer", default="runs/tiny/sft", help="of the first round")
    parser.add_argument("--output", default="runs/tiny-on-policy")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10, help="of GRPO, of each of the two, in a round")
    parser.add_argument("--freeze_explorer", action="store_true")
    given = parser.parse_args(argv)
    models = {"explorer": given.explorer, "synthesizer": given.synthesizer}
    for number in range(given.rounds):
        models = one_round(number, models, given, stage)
    print("\n".join(f"{role}: {folder}" for role, folder in models.items()))


if __name__ == "__main__":
    main()
