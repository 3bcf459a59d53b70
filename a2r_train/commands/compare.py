"""`a2r compare`: several kept evaluations on the same problems, side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from a2r_train.evaluate.comparison import compare

DESCRIPTION = """Compare the final synthesizers of several evaluations, such as one for each setting.

    a2r compare runs/a/evaluation runs/b/evaluation
    a2r compare runs/levers --against reference

Each folder with an evaluation becomes a line: accuracy greedy and sampled, the mean of both, and its
difference to that of the folder after --against (the first, where none is named), paired over problems. The
intervals are 95 %, Holm-corrected for all lines. They are of the problems alone: how far two trainings with
the same settings come apart is seen by training one twice. The last columns say how often the synthesizer is
right, greedy and sampled, where so many references are. Exit status 2 for wrong input."""


def main(arguments: Sequence[str]) -> int:
    """Print the table. Raises InputError for wrong input."""
    given = parser().parse_args(arguments)
    sys.stdout.write("\n".join(compare(given.folders, given.against)) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "a2r compare", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("folders", nargs="+", help="evaluations, or folders with some below them")
    made.add_argument("--against", default="", help="the one that the others are compared with")
    return made
