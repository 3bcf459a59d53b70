"""Measure the verdicts per second of `python_tests`, and show which reference solutions do not earn 1.

    python scripts/proofs/program_verdicts.py data/code/train.jsonl data/code/test.jsonl
    python scripts/proofs/program_verdicts.py google-research-datasets/mbpp:full:test mbpp.jsonl --least 60

All reference solutions are judged, mixed with infinite loops (one program in twenty). All programs differ, so
none is judged twice. Exit status 1 for fewer verdicts per second than `--least`, or if a loop earns 1. On a
shared machine, also look at the CPU time per verdict.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import time
from collections.abc import Sequence

from a2r_train.data.read import read
from a2r_train.records import CORRECT, Problem, row_of
from a2r_train.verify import judge_all, programs, sandbox

LOOP = "def {name}(*given, **named):\n    while True:\n        _ = {number}"


def looping(problem: Problem, number: int) -> str:
    """A program that never ends."""
    return LOOP.format(name=programs.hidden_tests(row_of(problem)).function, number=number)


def reason(problem: Problem) -> str:
    """Why a reference solution does not earn 1."""
    tests = programs.hidden_tests(row_of(problem))
    (ended,) = programs.run_once([tests.run(problem.answer)])
    if ended.how != "returned":
        return f"{ended.how}: over {tests.cpu_s:g} s of CPU time or {tests.wall_s:g} s by the clock"
    values = programs.returned(ended)
    if len(values) < len(tests.calls):
        return f"fails at {tests.calls[len(values)]}"
    pairs = zip(tests.calls, tests.expected, values, strict=True)
    return next(
        f"{call} is {value}, not {known!r}" for call, known, value in pairs if not programs.same(known, value)
    )


def timed(problems: Sequence[Problem], loop_share: float) -> tuple[list[str], float, float]:
    """Verdicts, seconds and CPU seconds of all reference solutions and the loops among them."""
    loops = random.Random(0).choices(problems, k=round(len(problems) * loop_share / (1 - loop_share)))
    asked = [(problem, problem.answer) for problem in problems]
    asked += [(problem, looping(problem, number)) for number, problem in enumerate(loops)]
    order = random.Random(1).sample(range(len(asked)), len(asked))
    items = [(f"```python\n{asked[i][1]}\n```", asked[i][0].answer, programs.NAME) for i in order]
    before, began = cpu_s(), time.monotonic()
    found = judge_all(items, [row_of(asked[i][0]) for i in order])
    seconds = time.monotonic() - began
    for server in sandbox._servers:  # the CPU time of children is known only after they end
        server.end()
    verdicts = dict(zip(order, (judgement.verdict for judgement in found), strict=True))
    return [verdicts[i] for i in range(len(asked))], seconds, cpu_s() - before


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems", nargs="+", help="problems with reference solutions")
    parser.add_argument("--loops", type=float, default=0.05, help="share of infinite loops")
    parser.add_argument(
        "--least", type=float, default=0.0, help="verdicts per second, below which the exit status is 1"
    )
    given = parser.parse_args()
    problems = [problem for path in given.problems for problem in read(Problem, path)]
    verdicts, seconds, cpu = timed(problems, given.loops)
    rate, loops = len(verdicts) / seconds, verdicts[len(problems) :]
    right = verdicts[: len(problems)].count(CORRECT)
    print(
        f"{len(verdicts)} verdicts, {len(loops)} of infinite loops, in {seconds:.1f} s: {rate:.0f} per second"
    )
    spent = f"{1000 * cpu / len(verdicts):.1f} ms of CPU time per verdict"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {spent}")
    print(
        f"{right} of {len(problems)} reference solutions earn 1, and {loops.count(CORRECT)} of the loops do"
    )
    for problem, verdict in zip(problems, verdicts, strict=False):
        if verdict != CORRECT:
            print(f"  {problem.source}{problem.id}: {reason(problem)}")
    raise SystemExit(rate < given.least or CORRECT in loops)


if __name__ == "__main__":
    main()
