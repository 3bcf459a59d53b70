"""Count verdict errors: wrong answers accepted, right ones refused, golds that do not equal themselves, and
verdicts that changed.

    python scripts/proofs/verdicts.py --cases tests/unit/verify/judged_by_hand.jsonl \\
        --golds gsm8k_test.jsonl math_test.jsonl \\
        --rollouts data/gsm8k-0.5b/rollouts.jsonl.xz --problems data/gsm8k-0.5b/golds.jsonl

`--cases` has rows with answer, gold and right, the verdict of a mathematician. `--golds` has rows with an
answer, which may be GSM8K's worked solution: each gold is compared with itself and with the next one.
`--rollouts` have verdicts of an earlier version. bench_verify.py compares the speed with plain math-verify.
Exit status 1 if a wrong case is accepted.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.records import CORRECT, Problem, Rollout
from a2r_train.verify import check_gold, compare, judge_all
from a2r_train.verify.compare import compare_all


def rows_of(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def cases(path: str) -> int:
    """Count the wrong answers that are accepted. Prints them, and the right ones that are refused."""
    rows = rows_of(path)
    verdicts = compare_all([(row["answer"], row["gold"], "math") for row in rows])
    judged = list(zip(rows, verdicts, strict=True))
    paid = [row for row, verdict in judged if verdict == CORRECT and row["right"] != CORRECT]
    refused = [row for row, verdict in judged if verdict != CORRECT and row["right"] == CORRECT]
    print(f"{path}: {len(rows)} cases, {len(paid)} wrong ones accepted, {len(refused)} right ones refused")
    for name, found in (("accepted", paid), ("refused", refused)):
        for row in found:
            print(f"    {name}: {row['answer']!r} -> {row['gold']!r}")
    return len(paid)


def golds(path: str) -> None:
    """Compare each gold with itself, and with that of the next problem."""
    found = [row["answer"] for row in rows_of(path)]
    texts = [gold.rpartition("####")[2].strip() if isinstance(gold, str) else plain(gold) for gold in found]
    compare.MAX_NAMED = len(texts)
    try:
        check_gold([Problem(str(i), "?", gold) for i, gold in enumerate(texts)], "problems")
        print(f"{path}: {len(texts)} golds, none refused")
    except InputError as error:
        print(f"{path}: {len(texts)} golds; {error}")
    itself = compare_all([(gold, gold, "math") for gold in texts])
    print(
        f"    not itself: {[gold for gold, verdict in zip(texts, itself, strict=True) if verdict != CORRECT]}"
    )
    pairs = list(zip(texts, [*texts[1:], texts[0]], strict=True))
    verdicts = compare_all([(*pair, "math") for pair in pairs])
    equal = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict == CORRECT]
    print(f"    equal to the next: {len(equal)}, not literally: {[(a, b) for a, b in equal if a != b]}")


def plain(gold: float) -> str:
    """A JSON number as text, in the form in which records are read."""
    return str(int(gold)) if math.isfinite(gold) and gold == int(gold) else str(gold)


def rollouts(path: str, problems: str) -> None:
    """Report rollouts whose stored verdict or answer has changed."""
    kept = read(Rollout, path)
    by_id = {problem.id: problem for problem in read(Problem, problems)}
    judged = judge_all([(r.text, by_id[r.problem_id].answer, by_id[r.problem_id].verifier) for r in kept])
    changed = [(r, j) for r, j in zip(kept, judged, strict=True) if r.verdict != j.verdict]
    answers = sum(r.answer != j.answer for r, j in zip(kept, judged, strict=True))
    print(f"{path}: {len(kept)} rollouts, {len(changed)} changed verdicts, {answers} changed answers")
    for r, j in changed:
        gold = by_id[r.problem_id].answer
        print(
            f"    {r.problem_id}/{r.sample}: {r.verdict} {r.answer!r} is now "
            f"{j.verdict} {j.answer!r}, "
            f"gold {gold!r}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="*", default=[])
    parser.add_argument("--golds", nargs="*", default=[])
    parser.add_argument("--rollouts", nargs="*", default=[])
    parser.add_argument("--problems", default="")
    given = parser.parse_args()
    paid = sum([cases(path) for path in given.cases])
    for path in given.golds:
        golds(path)
    for path in given.rollouts:
        rollouts(path, given.problems)
    sys.exit(1 if paid else 0)


if __name__ == "__main__":
    main()
