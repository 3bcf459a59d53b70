"""Check kept evaluations on a laptop: judge every kept synthesis anew and make results.json from it, without
any model.

    python scripts/rescore.py data/results/gsm8k
    python scripts/rescore.py data/results/gsm8k/evaluation-0.5b --regenerate --grpo
    data/results/gsm8k/adapters/0.5b-grpo python scripts/rescore.py data/results/gsm8k/evaluation-0.5b
    --regenerate --max_bundles 16    # for machines without a GPU

Run it from the root of the repository. The first prints a line for each evaluation below the folder: `same
bytes`, or what differs. With --regenerate the models answer again, below runs/rescore, and a row agrees if
its new accuracy lies in the kept 95 % interval, with --max_bundles that of the kept answers to the first
bundles, which is wide. Options name models that are elsewhere than the kept config says; an adapter finds its
base where its adapter_config.json says, so make that first (`a2r merge --config
recipes/gsm8k-0.5b/merge.yaml`). Exit status 1 where something differs, 2 for wrong input.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from a2r_train.errors import InputError
from a2r_train.evaluate.kept import Compared, find_evaluations, regenerate, rescore

OUT = Path("runs/rescore")
CHANGES = ("base", "sft", "grpo", "no_references", "explorer", "engine")


def report_scores(folders: list[Path]) -> bool:
    """Whether all evaluations came out the same."""
    same = True
    for folder in folders:
        said = rescore(folder)
        print(f"{folder}: {'; '.join(said) or 'same bytes'}", flush=True)
        same &= not said
    return same


def report_regenerated(root: Path, folders: list[Path], changes: dict[str, str], max_bundles: int) -> bool:
    """Whether all new accuracies lie in the kept intervals."""
    inside = True
    for folder in folders:
        out = place(root, folder, max_bundles)
        if (out / "done.json").exists():  # its answers would be compared again, and no model asked
            raise InputError(f"{out}: was regenerated already; remove it to let the models answer again")
        rows = regenerate(folder, str(out), changes, max_bundles)
        print(f"\n| {folder} | kept | interval | anew | | same verdicts |\n|---|---|---|---|---|---|")
        for row in rows:
            print(line(row), flush=True)
        inside &= all(row.inside for row in rows)
    return inside


def place(root: Path, folder: Path, max_bundles: int) -> Path:
    """Where a regenerated evaluation goes: for each folder, and for each part of it, another."""
    whole, here = folder.resolve(), Path.cwd()
    name = (
        whole.relative_to(here)
        if whole.is_relative_to(here)
        else Path(root.resolve().name, folder.relative_to(root))
    )
    return OUT / (f"{name}-first-{max_bundles}" if max_bundles else name)


def line(row: Compared) -> str:
    kept, low, high, new = (
        "-" if x is None else f"{100 * x:.2f}" for x in (row.accuracy, row.low, row.high, row.new)
    )
    return (
        f"| {row.name} | {kept} | {low} to {high} | {new} | "
        f"{'inside' if row.inside else 'outside'} | {row.same or '-'} |"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="a kept evaluation, or a folder with some below it")
    parser.add_argument("--regenerate", action="store_true", help="let the models answer again")
    for name in CHANGES:
        parser.add_argument(
            f"--{name}", default="", help=f"with --regenerate: another {name} than the kept config names"
        )
    parser.add_argument(
        "--max_bundles", type=int, default=0, help="with --regenerate: the first bundles alone; 0 takes all"
    )
    given = parser.parse_args(arguments)
    changes = {name: getattr(given, name) for name in CHANGES}
    if (any(changes.values()) or given.max_bundles) and not given.regenerate:
        parser.error("models, engine and max_bundles are for --regenerate alone")
    if given.max_bundles < 0:
        parser.error(f"--max_bundles is {given.max_bundles}; expected 0 or more")
    try:
        folders = find_evaluations(given.root)
        same = (
            report_regenerated(given.root, folders, changes, given.max_bundles)
            if given.regenerate
            else report_scores(folders)
        )
    except InputError as error:
        sys.stderr.write(f"rescore: {error}\n")
        return 2
    return 0 if same else 1


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
