"""`a2r compare`: several kept evaluations on the same problems, side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from a2r_train.evaluate.comparison import compare

DESCRIPTION = """Compare the final synthesizers of several evaluations, such as one for each setting.

    a2r compare runs/a/evaluation runs/b/evaluation
    a2r compare runs/levers --against reference

Each folder with an evaluation becomes a line: greedy and sampled accuracy, the mean of both, and the
difference of that mean from the folder named by --against (by default the first), paired over problems. If
one of them has no sampled answers, only greedy ones are compared. The intervals are 95 %, Holm-corrected for
all lines. They cover the choice of problems only: to see how far two trainings with the same settings differ,
train one twice. The last columns give how often the synthesizer is right, as compared, by the number of right
references of a bundle. Exit status 2 for wrong input."""


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
    made.add_argument("--against", default="", help="the evaluation to compare the others with")
    return made
