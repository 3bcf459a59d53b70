"""`a2r rescore`: kept evaluations checked on a laptop, without any model; or their models asked again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from a2r_train.errors import InputError
from a2r_train.evaluate.kept import Compared, Rescored, find_evaluations, regenerate, rescore

OUT = Path("runs/rescore")
CHANGES = ("base", "sft", "grpo", "no_references", "explorer", "engine")
DESCRIPTION = """Judge every kept answer and rollout below a folder again, and make each results.json again.

    a2r rescore data/results
    a2r rescore data/results/gsm8k-1.5b/evaluation-1.5b --regenerate --grpo ADAPTER
    a2r rescore data/results/gsm8k/evaluation-0.5b --regenerate --max_bundles 16    # without a GPU

Run it from the root of the repository. The first command prints a line for each evaluation: `same bytes`, or
what differs; if only the rollouts are kept, which rows were made again from them. With --regenerate the
models answer again, below runs/rescore. A row agrees if its new accuracy lies in the kept 95 % interval; with
--max_bundles, in that of the kept answers to the first bundles, which is wide. Further options name models
that are not where the kept config says. An adapter finds its base where its adapter_config.json says, so make
that first (`a2r merge --config recipes/gsm8k-0.5b/merge.yaml`). The texts of the problems are not kept: they
are read from the set that the kept bundles name, or from --problems. Exit status 1 if something differs, 2
for wrong input."""


def main(arguments: Sequence[str]) -> int:
    """The exit status. Raises InputError for wrong input."""
    given = _parsed(arguments)
    folders = find_evaluations(given.folder)
    if not given.regenerate:
        return 0 if report_scores(folders) else 1
    changes = {name: getattr(given, name) for name in CHANGES}
    return 0 if report_regenerated(folders, given, changes) else 1


def report_scores(folders: Sequence[Path]) -> bool:
    """Whether all that could be made again came out the same. Raises InputError if that is nothing."""
    checked = same = 0
    for folder in folders:
        found = rescore(folder)
        checked += bool(found.rows)
        same += not found.said
        sys.stdout.write(f"{folder}: {said_of(found)}\n")
        sys.stdout.flush()
    if not checked:
        raise InputError(f"{folders[0]}: neither answers nor rollouts are kept; nothing can be made again")
    return same == len(folders)


def said_of(found: Rescored) -> str:
    if found.said:
        return "; ".join(found.said)
    if not found.others:
        return "same bytes"
    if not found.rows:
        return "only the table is kept; not checked"
    rows = ", ".join(found.rows)
    return f"{rows} are the same; the answers behind the other {len(found.others)} rows are not kept"


def report_regenerated(folders: Sequence[Path], given: argparse.Namespace, changes: dict[str, str]) -> bool:
    """Whether all new accuracies lie in the kept intervals."""
    inside = True
    for folder in folders:
        out = place(given.folder, folder, given.max_bundles)
        if (out / "done.json").exists():  # its answers would be compared again, and no model asked
            raise InputError(f"{out}: was already regenerated; remove it to let the models answer again")
        rows = regenerate(folder, str(out), changes, given.max_bundles, given.problems)
        head = f"\n| {folder} | kept | interval | anew | | same verdicts |\n|---|---|---|---|---|---|\n"
        sys.stdout.write(head + "".join(f"{line(row)}\n" for row in rows))
        sys.stdout.flush()
        inside &= all(row.inside for row in rows)
    return inside


def place(root: Path, folder: Path, max_bundles: int) -> Path:
    """Where a regenerated evaluation goes: a place of its own for each folder, and for each part of it."""
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
    agrees = "inside" if row.inside else "outside"
    return f"| {row.name} | {kept} | {low} to {high} | {new} | {agrees} | {row.same or '-'} |"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "a2r rescore", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("folder", type=Path, help="a kept evaluation, or a folder with some below it")
    made.add_argument("--regenerate", action="store_true", help="let the models answer again")
    made.add_argument(
        "--problems",
        default="",
        help="the set with the texts of the problems: a file, or a data set of the hub",
    )
    for name in CHANGES:
        made.add_argument(f"--{name}", default="", help=f"instead of the {name} that the kept config names")
    made.add_argument("--max_bundles", type=int, default=0, help="use only the first N bundles; 0 uses all")
    return made


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    given = parser().parse_args(arguments)
    options = [name for name in (*CHANGES, "problems", "max_bundles") if getattr(given, name)]
    if options and not given.regenerate:
        raise InputError(f"--{options[0]}: works only with --regenerate")
    if given.max_bundles < 0:
        raise InputError(f"--max_bundles is {given.max_bundles}; expected 0 or more")
    return given
