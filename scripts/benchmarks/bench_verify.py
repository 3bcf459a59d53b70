"""Compare verification with plain math-verify in the same run: speed from a cold cache, and disagreements.

    python scripts/benchmarks/bench_verify.py data/gsm8k-0.5b/rollouts.jsonl.xz data/gsm8k-0.5b/golds.jsonl

Plain means a reward function without workers: `verify(parse(gold), parse(text))` in one process, without a
deadline. Both see the text without its thinking. The second line judges each distinct comparison once, so
that nothing is cached. Exit status 1 if the two disagree about an answer that both can read. If no answer is
marked, or several boxed answers differ, plain math-verify takes any number that it finds, and this package
deliberately does not. Those cases are counted separately.
"""

import argparse
import logging
import os
import sys
import time

from math_verify import parse, verify

from a2r_train.data.read import read
from a2r_train.data.rollouts import load_rollouts
from a2r_train.evaluate.kept_bundles import read_golds
from a2r_train.prompts import visible
from a2r_train.records import Rollout
from a2r_train.verify import compare, judge_all, pool
from a2r_train.verify.extract import candidates

Item = tuple[str, str, str]  # text, gold, verifier


def plain(items: list[Item]) -> list[bool]:
    """Whether plain math-verify accepts each text."""
    golds = [rf"\boxed{{{gold}}}" for _, gold, _ in items]
    parsed = [
        (parse(g, parsing_timeout=None), parse(visible(t), parsing_timeout=None))
        for g, (t, _, _) in zip(golds, items, strict=True)
    ]
    return [bool(verify(gold, answer, timeout_seconds=None)) for gold, answer in parsed]


def ours(items: list[Item]) -> tuple[list[bool], int]:
    """Whether we accept each text, from a cold cache, and how many comparisons went to a worker."""
    compare._cache.clear()
    asked: list[pool.Request] = []
    ask_all = pool.ask_all
    pool.ask_all = lambda requests: asked.extend(requests) or ask_all(requests)
    try:
        return [judgement.verdict == "correct" for judgement in judge_all(items)], len(asked)
    finally:
        pool.ask_all = ask_all


def measure(name: str, items: list[Item]) -> list[tuple[Item, bool, bool]]:
    """Print one line; returns the disagreements not due to policy, as (item, ours, plain)."""
    began = time.monotonic()
    found, asked = ours(items)
    seconds, began = time.monotonic() - began, time.monotonic()
    expected = plain(items)
    plain_seconds = time.monotonic() - began
    different = [row for row in zip(items, found, expected, strict=True) if row[1] != row[2]]
    off = [row for row in different if len(read := candidates(row[0][0], "math")) == 1 and read[0]]
    rate, plain_rate = len(items) / seconds, len(items) / plain_seconds
    print(
        f"{name}: {len(items)} answers, {rate:.0f}/s, plain math-verify "
        f"{plain_rate:.0f}/s, {rate / plain_rate:.1f} times; "
        f"{1 - asked / len(items):.1%} hits (cached, or decided without a worker), "
        f"{len(off)} disagreements, and {len(different) - len(off)} by policy"
    )
    return off


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rollouts")
    parser.add_argument(
        "golds", nargs="?", default="", help="leave out if each rollout row has problem and answer"
    )
    given = parser.parse_args()
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    if given.golds:
        by_id, rollouts = read_golds(given.golds), read(Rollout, given.rollouts)
    else:
        problems, rollouts = load_rollouts("", given.rollouts)
        by_id = {problem.id: problem for problem in problems}
    items = [(r.text, by_id[r.problem_id].answer, by_id[r.problem_id].verifier) for r in rollouts]
    items = [item for item in items if item[2] == "math"]
    different = {
        (candidates(text, verifier)[-1], gold): (text, gold, verifier) for text, gold, verifier in items
    }
    began = time.monotonic()
    pool.ask_all([(rf"\sqrt{{x+{i}}}", "y", "math") for i in range(pool.WORKERS)])  # start the workers
    print(f"workers started in {time.monotonic() - began:.1f} s, once per run")
    print(f"{pool.WORKERS} workers, {os.cpu_count()} cores")
    off = measure("rollouts as they are", items)
    off += measure("each distinct answer once", list(different.values()))
    for (text, gold, _), mine, theirs in off[:20]:
        print(f"gold {gold!r}: ours {mine}, plain {theirs}: ...{text[-100:]!r}")
    sys.exit(1 if off else 0)


if __name__ == "__main__":
    main()
