"""Write MAWPS (columns input, target, type) as problems without duplicates. Problems that differ only in
case, spaces and punctuation are duplicates.

    python scripts/make_data/mawps.py mawps.jsonl runs/mawps/problems.jsonl

The first of several duplicates is kept. One dropped duplicate, 1005, has another answer than its first, 479:
30 is the number of pies, not of rows. The answers are decimals, such as 43.0. The verifier accepts 43 for it,
and 2/3 for 0.6666666667, but not 0.67.
"""

from __future__ import annotations

import re
import sys

from a2r_train.data.read import Columns, read
from a2r_train.records import Problem, write

COLUMNS = {"id": "idx", "problem": "input", "answer": "target", "source": "type"}


def distinct(problems: list[Problem]) -> list[Problem]:
    """Keep the first of each set of problems with the same words and numbers."""
    kept: dict[str, Problem] = {}
    for problem in problems:
        kept.setdefault(" ".join(re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+", problem.problem.lower())), problem)
    return list(kept.values())


def main(source: str, target: str) -> None:
    problems = read(Problem, source, Columns(COLUMNS))
    kept = distinct(problems)
    write(kept, target)
    sys.stdout.write(f"{target}: {len(kept)} of {len(problems)} problems\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
