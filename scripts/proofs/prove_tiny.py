"""What the quickstart leaves out: the no-reference control, three training seeds, and two more test sets.

    python scripts/proofs/prove_tiny.py    # after the quickstart; an hour on 2 cores; can be resumed

For every seed, SFT and GRPO run as in recipes/tiny, and again on the same problems without references
(`plain_share: 1`, the control). All checkpoints are evaluated on the test set of data/tiny and on two sets
drawn from generator seeds that nothing else uses. Prints the table of data/tiny/README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import random
import subprocess
import sys
from pathlib import Path

from a2r_train.data.read import read
from a2r_train.records import Problem, write

sys.path.insert(0, str(Path(__file__).parent.parent / "make_data"))
import tiny_rows

log = logging.getLogger("prove_tiny")

OUT = Path("runs/tiny-proof")
SEEDS = (0, 1, 2)
FURTHER_SETS = {"further-1": 1001, "further-2": 1002}  # generator seeds
RIVALS = ("synthesizer/base", "maj@4", "synthesizer/alone", "synthesizer/no_references", "synthesizer/sft")


def stage(verb: str, recipe: str, **changes: object) -> None:
    """Run one stage of recipes/tiny with some keys changed; a finished stage returns at once."""
    module = (
        ["a2r_train.cli", verb] if verb in ("explore", "bundle", "evaluate") else [f"a2r_train.train.{verb}"]
    )
    options = [text for key, value in changes.items() for text in (f"--{key}", str(value))]
    subprocess.run(
        [sys.executable, "-m", *module, "--config", f"recipes/tiny/{recipe}.yaml", *options], check=True
    )


def further_problems() -> None:
    """Draw the further sets. They share no problem with pre-training, the shipped sets, or each other."""
    if all((OUT / f"{name}.jsonl").exists() for name in FURTHER_SETS):
        return
    config = tiny_rows.PretrainConfig.load("recipes/tiny/pretrain.yaml")
    taken = tiny_rows.pretrained_on(config)
    shipped = tiny_rows.draw_sets(config, taken)  # adds its problems to `taken`
    told = [tale.text for tale in shipped["test"]]
    if told != [problem.problem for problem in read(Problem, "data/tiny/test.jsonl")]:
        raise ValueError("data/tiny/test.jsonl does not match recipes/tiny/pretrain.yaml; restore both")
    for name, seed in FURTHER_SETS.items():
        draw_further(dataclasses.replace(config, seed=seed), name, taken)


def draw_further(config: tiny_rows.PretrainConfig, name: str, taken: set[int]) -> None:
    rng = random.Random(config.seed)
    mix = {"difficulties": config.difficulties, "kinds": config.kinds}
    tales = tiny_rows.draw_new(rng, 1000, taken, **mix)
    write((tiny_rows.as_problem(tale, name, i) for i, tale in enumerate(tales)), OUT / f"{name}.jsonl")


def bundle_further() -> dict[str, Path]:
    """Explore and bundle the further sets. Returns, by name, the folder of each test set."""
    for name in FURTHER_SETS:
        problems, rollouts = OUT / f"{name}.jsonl", OUT / name / "rollouts"
        stage("explore", "explore-test", problems=problems, output_dir=rollouts)
        stage(
            "bundle",
            "bundle",
            test_problems=problems,
            test_rollouts=rollouts / "rollouts.jsonl",
            output_dir=OUT / name / "bundles",
        )
    return {"test": Path("runs/tiny"), **{name: OUT / name for name in FURTHER_SETS}}


def train(seed: int) -> dict[str, Path]:
    """Train with and without references. Seed 0 with references is the quickstart's own run."""
    folders = {}
    for control in (False, True):
        own = (
            Path("runs/tiny")
            if seed == 0 and not control
            else OUT / f"seed-{seed}{'-control' if control else ''}"
        )
        options = {"plain_share": float(control), "seed": seed}
        stage("sft", "sft", output_dir=own / "sft", **options)
        stage("grpo", "grpo", model_name_or_path=own / "sft", output_dir=own / "grpo", **options)
        folders["control" if control else "trained"] = own
    return folders


def evaluate(name: str, place: Path, seed: int, folders: dict[str, Path]) -> dict[str, object]:
    rollouts = place / ("rollouts-test" if name == "test" else "rollouts") / "rollouts.jsonl"
    output = OUT / f"evaluation-{name}-{seed}"
    trained, control = folders["trained"], folders["control"]
    checkpoints = {"sft": trained / "sft", "grpo": trained / "grpo", "no_references": control / "grpo"}
    stage(
        "evaluate",
        "evaluate",
        bundles=place / "bundles/test.jsonl",
        rollouts=rollouts,
        output_dir=output,
        **checkpoints,
    )
    return dict(json.loads((output / "results.json").read_text()))


def table(results: dict[tuple[str, int], dict[str, object]]) -> str:
    """Markdown with one line per set, seed and temperature. Each cell is a difference in points with its
    Holm-corrected interval.
    """
    head = "| test set | seed | row | accuracy | " + " | ".join(f"above {rival}" for rival in RIVALS) + " |"
    lines = [head, "|---" * (4 + len(RIVALS)) + "|"]
    for (name, seed), result in results.items():
        for row in ("synthesizer/sft+grpo", "synthesizer/sft+grpo@T"):
            accuracy = next(r["accuracy"] for r in result["rows"] if r["name"] == row)  # type: ignore[attr-defined]
            pairs = {p["b"].removesuffix("@T"): p for p in result["paired"] if p["a"] == row}  # type: ignore[attr-defined]
            cells = [cell(pairs[rival]) for rival in RIVALS]
            lines.append(
                f"| {name} | {seed} | {'at T=1' if row.endswith('@T') else 'greedy'} "
                f"| {100 * accuracy:.1f} | " + " | ".join(cells) + " |"
            )
    return "\n".join(lines)


def cell(pair: dict[str, float]) -> str:
    return (
        f"{100 * pair['difference']:+.1f} ({100 * pair['low_holm']:+.1f} to {100 * pair['high_holm']:+.1f})"
    )


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    OUT.mkdir(parents=True, exist_ok=True)
    further_problems()
    sets = bundle_further()
    results = {}
    for seed in SEEDS:
        folders = train(seed)
        for name, place in sets.items():
            results[name, seed] = evaluate(name, place, seed, folders)
        log.info("%s\n", table(results))
    (OUT / "table.md").write_text(table(results) + "\n")


if __name__ == "__main__":
    main()
