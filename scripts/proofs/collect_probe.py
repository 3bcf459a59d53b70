"""Collect the stored evaluations for check_probe.py in docs/measured/probe.jsonl, one row per evaluation.

    python scripts/proofs/collect_probe.py     # reads data/results, and answers in the git history

A row has the patterns of the bundles, how often the untrained and the trained synthesizer are right on each,
and the patterns' shares in the rollouts, as `a2r probe` counts them. MAWPS has no stored rollouts, so its
patterns are derived from its tables. `--tiny FOLDER` adds the evaluation of recipes/tiny.
"""

from __future__ import annotations

import argparse
import json
import logging
import lzma
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from a2r_train.data.probe import Pattern, pattern_of, pools_of
from a2r_train.data.read import read
from a2r_train.evaluate.kept_bundles import bundles_of
from a2r_train.evaluate.probe.config import ProbeConfig
from a2r_train.evaluate.probe.facts import Facts, last_vote, tokens
from a2r_train.evaluate.probe.power import (
    STANDARD_ERRORS,
    Spread,
    shown_pattern,
    spread_against_base,
    spread_against_vote,
)
from a2r_train.evaluate.probe.selector import Selector
from a2r_train.records import CORRECT, Bundle, Rollout, Synthesis, write_text

log = logging.getLogger("collect_probe")
ROOT, COMMIT = Path("data/results"), "faccada"
ROWS = Path("docs/measured/probe.jsonl")
TRAINED = ("synthesizer/sft+grpo", "synthesizer/grpo", "synthesizer/sft")
CONTROL, ALONE, BASE = "synthesizer/no_references", "synthesizer/alone", "synthesizer/base"
Json = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """An evaluation: its explorer, its rollouts, its bundles (stored, or in the history), and the evaluation
    with its untrained row.
    """

    name: str
    explorer: str
    rollouts: str
    bundles: str
    base_in: str = ""


OF_05, OF_15 = "0.5B", "1.5B"
TRAINED_05, TRAINED_15 = "trained 0.5B", "trained 1.5B"
VALIDATION = [
    *(
        "all",
        "all-again",
        "cap-10",
        "group-16",
        "kl-0.04",
        "plain-half",
        "plain-half-108",
        "plain-half-again",
    ),
    *("rate-1e-4", "reference", "seed-1", "sft-from-1.5b", "sft"),
]
_512 = ("gsm8k-512/rollouts-test.jsonl.xz", "gsm8k-512/bundles-test.kept.json")
_T05 = ("gsm8k-trained/rollouts-test-0.5b.jsonl.xz", "gsm8k-trained/bundles-test-0.5b.kept.json")
_T15 = ("gsm8k-trained/rollouts-test-1.5b.jsonl.xz", "gsm8k-trained/bundles-test-1.5b.kept.json")
_V = ("gsm8k-512/rollouts-train.jsonl.xz", "gsm8k-levers/bundles-validation.jsonl.xz")
SOURCES = [
    Source("gsm8k/evaluation-0.5b", OF_05, "gsm8k/rollouts-test.jsonl.xz", "gsm8k/bundles-test.kept.json"),
    *(
        Source(name, OF_05, *_512)
        for name in (
            "gsm8k-512/evaluation-0.5b",
            "gsm8k-512-5e-5/evaluation-0.5b",
            "gsm8k-512/first-adapters",
            "gsm8k-levers/test",
            "gsm8k-1.5b/small-to-big",
        )
    ),
    *(Source(f"gsm8k-levers/validation/{n}", OF_05, *_V, "gsm8k-levers/validation/sft") for n in VALIDATION),
    Source(
        "gsm8k-levers/validation/explored-at-1.0",
        OF_05,
        "gsm8k-levers/rollouts-train-hot.jsonl.xz",
        "gsm8k-levers/bundles-validation-hot.jsonl.xz",
        "none",
    ),
    Source(
        "gsm8k-1.5b/evaluation-1.5b",
        OF_15,
        "gsm8k-1.5b/rollouts-test.jsonl.xz",
        "gsm8k-1.5b/bundles-test.kept.json",
    ),
    *(
        Source(name, TRAINED_05, *_T05)
        for name in ("gsm8k-trained/evaluation-0.5b", "gsm8k-trained/third-0.5b", "gsm8k-trained/panel-0.5b")
    ),
    *(
        Source(name, TRAINED_15, *_T15)
        for name in ("gsm8k-trained/evaluation-1.5b", "gsm8k-trained/first-1.5b")
    ),
]
MAWPS = {
    "mawps": "",
    "mawps/third-512": "mawps/untrained-512",
    "mawps/1.5b": "",
    "mawps/trained-0.5b": "mawps/trained-0.5b",
}


def content(path: str) -> bytes:
    """A file below data/results, or its version in the git history; decompressed."""
    here = ROOT / path
    if here.is_file():
        raw = here.read_bytes()
    else:
        place = f"{COMMIT}:{(ROOT / path).as_posix()}"
        asked = subprocess.run(["git", "show", place], capture_output=True, check=False)
        if asked.returncode:
            raise SystemExit(f"{place} is not in this clone; run git fetch --unshallow")
        raw = asked.stdout
    return lzma.decompress(raw) if path.endswith(".xz") else raw


def rows_of(path: str) -> list[Json]:
    return [json.loads(line) for line in content(path).decode().splitlines()]


def right_of(evaluation: str, row: str) -> dict[str, float]:
    """For each bundle, whether the row's greedy answer was right; {} if its answers are not stored."""
    manifest = json.loads(
        subprocess.run(
            ["git", "show", f"{COMMIT}:{(ROOT / evaluation / 'manifest.json').as_posix()}"],
            capture_output=True,
            check=True,
        ).stdout
    )
    files = manifest["tasks"].get(row, [])
    return {
        answer["bundle_id"]: float(answer["verdict"] == CORRECT)
        for file in files
        for answer in rows_of(f"{evaluation}/{file}")
    }


def patterns_in(path: str) -> dict[str, tuple[str, Pattern]]:
    """For each bundle, its problem and its pattern."""
    if path.endswith(".kept.json"):
        return {b.id: (b.problem_id, shown_pattern(b)) for b in bundles_of(str(ROOT / path))}
    return {
        row["id"]: (
            row["problem_id"],
            pattern_of(row["reference_answers"], row["reference_verdicts"], row["verifier"]),
        )
        for row in rows_of(path)
    }


def facts_of(path: str, problems: set[str]) -> Facts:
    """What the probe counts in the rollouts of these problems."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rollouts.jsonl"
        file.write_bytes(content(path))
        rollouts = [r for r in read(Rollout, str(file)) if r.problem_id in problems]
    return Facts(ProbeConfig(path, "", draws=200), pools_of(rollouts, {}, "math"))


def collect(tiny: str) -> list[Json]:
    """One row per evaluation."""
    rows, seen = [], {}
    for source in SOURCES:
        shown = patterns_in(source.bundles)
        if source.rollouts not in seen:
            seen[source.rollouts] = facts_of(source.rollouts, {problem for problem, _ in shown.values()})
        found = json.loads(content(f"{source.name}/results.json"))
        trained = right_of(source.name, next(n for n in TRAINED if n in {r["name"] for r in found["rows"]}))
        base = {} if source.base_in == "none" else right_of(source.base_in or source.name, BASE)
        rows.append(row(source, found, seen[source.rollouts], shown, base, trained))
        log.info("%s", source.name)
    rows += [mawps(name, of) for name, of in MAWPS.items()]
    return rows + ([of_tiny(Path(tiny))] if tiny else [])


def row(
    source: Source,
    found: Json,
    facts: Facts,
    shown: Mapping[str, tuple[str, Pattern]],
    base: Mapping[str, float],
    trained: Mapping[str, float],
) -> Json:
    members: defaultdict[Pattern, list[str]] = defaultdict(list)
    for bundle, (_, pattern) in shown.items():
        members[pattern].append(bundle)
    shares = dict(zip(facts.patterns, facts.weights.tolist(), strict=True))
    cells = [
        cell(
            pattern,
            shares.get(pattern, 0.0),
            [base[b] for b in members[pattern] if b in base],
            [trained[b] for b in members[pattern] if b in trained],
        )
        for pattern in dict.fromkeys([*shares, *members])
    ]
    vote = spread_against_vote(facts.patterns, facts.shares, Selector().trained())
    rival = spread_against_base(facts.patterns, facts.shares, Selector().trained(), Selector())
    return measured(source.name, source.explorer, found) | {
        "from": "rollouts",
        "cells": cells,
        "equal_counted": counted_equal(facts),
        "predicted_se": {"vote": error_of(vote, found), "base": error_of(rival, found)},
    }


def counted_equal(facts: Facts) -> float:
    """The vote of as many rollouts as cost the tokens of a two-stage answer, by the probe's count."""
    m = tokens(facts, {}, 0.0)["equal"]
    return float(np.nanmean(last_vote(facts, m)))


def error_of(spread: Spread, found: Json) -> float:
    """The standard error that the probe predicts for this evaluation's paired difference."""
    return spread.smallest(found["rows"][0]["n"], 1) / STANDARD_ERRORS


def cell(pattern: Pattern, share: float, base: Sequence[float], trained: Sequence[float]) -> Json:
    return {
        "groups": pattern.groups,
        "unread": pattern.unread,
        "share": round(share, 6),
        "n": len(trained),
        "base": round(float(np.mean(base)), 4) if base else None,
        "trained": round(float(np.mean(trained)), 4) if trained else None,
    }


def measured(name: str, explorer: str, found: Json) -> Json:
    """The figures that the evaluation measured."""
    of = {r["name"]: r["accuracy"] for r in found["rows"]}
    trained = next(n for n in TRAINED if n in of)
    vote = next(n for n in of if n.startswith("maj@") and "equal" not in n)
    errors = {
        key: (p["high"] - p["low"]) / 2 / 1.96
        for p in found["paired"]
        if p["a"] == trained
        for key, rival in (("vote", vote), ("base", BASE))
        if p["b"] == rival
    }
    names = {
        "trained": trained,
        "base": BASE,
        "vote": vote,
        "equal": "maj@equal_tokens",
        "alone": ALONE,
        "control": CONTROL,
        "oracle": next(n for n in of if n.startswith("pass@") and n != "pass@1"),
    }
    return {"name": name, "explorer": explorer, "problems": found["rows"][0]["n"], "se": errors} | {
        key: of.get(value) for key, value in names.items()
    }


def mawps(name: str, base_of: str) -> Json:
    """A row from the table's cells. For four readable references they determine everything except how three
    wrong ones agree. Of the remaining cases, two are assumed to agree in three quarters, all three in one.
    """
    found = json.loads(content(f"{name}/results.json"))
    diagnostics = found["diagnostics"]["by_correct"]
    key = next(n for n in TRAINED if n in diagnostics)
    base = (
        json.loads(content(f"{base_of}/results.json"))["diagnostics"]["by_correct"][BASE] if base_of else {}
    )
    vote = {int(j): c["accuracy"] for j, c in diagnostics["maj@4"].items()}
    kinds: dict[int, list[tuple[Pattern, float]]] = {
        0: [(Pattern(((1, False),) * 4), 1.0)],
        1: [
            (Pattern(((1, True), *((1, False),) * 3)), min(1.0, 4 * vote[1])),
            (Pattern(((2, False), (1, True), (1, False))), 0.75 * max(0.0, 1 - 4 * vote[1])),
            (Pattern(((3, False), (1, True))), 0.25 * max(0.0, 1 - 4 * vote[1])),
        ],
        2: [
            (Pattern(((2, True), (1, False), (1, False))), 2 * vote[2] - 1),
            (Pattern(((2, True), (2, False))), 2 - 2 * vote[2]),
        ],
        3: [(Pattern(((3, True), (1, False))), 1.0)],
        4: [(Pattern(((4, True),)), 1.0)],
    }
    total = sum(c["n"] for c in diagnostics["maj@4"].values())
    cells = [
        {
            "groups": p.groups,
            "unread": 0,
            "share": part * diagnostics[key][str(j)]["n"] / total,
            "n": part * diagnostics[key][str(j)]["n"],
            "base": base.get(str(j), {}).get("accuracy"),
            "trained": diagnostics[key][str(j)]["accuracy"],
        }
        for j, parts in kinds.items()
        for p, part in parts
    ]
    rows = json.loads(content(f"{base_of}/results.json"))["rows"] if base_of else []
    of_base = next((r["accuracy"] for r in rows if r["name"] == BASE), None)
    return measured(name, "MAWPS", found) | {
        "from": "cells",
        "cells": cells,
        "base": of_base,
        "predicted_se": {},
    }


def of_tiny(folder: Path) -> Json:
    """The row of the evaluation that `a2r run recipes/tiny` writes."""
    found = json.loads((folder / "evaluation/results.json").read_text())
    manifest = json.loads((folder / "evaluation/manifest.json").read_text())
    bundles = read(Bundle, str(folder / "bundles/test.jsonl"))
    shown = {b.id: (b.problem_id, shown_pattern(b)) for b in bundles}
    rollouts = read(Rollout, str(folder / "rollouts-test/rollouts.jsonl"))
    facts = Facts(ProbeConfig("", "", draws=200), pools_of(rollouts, {}, "math"))

    def right(name: str) -> dict[str, float]:
        answers = [
            s for f in manifest["tasks"][name] for s in read(Synthesis, str(folder / "evaluation" / f))
        ]
        return {s.bundle_id: float(s.verdict == CORRECT) for s in answers}

    source = Source("data/tiny", "tiny", "", "")
    trained = next(n for n in TRAINED if n in manifest["tasks"])
    return row(source, found, facts, shown, right(BASE), right(trained))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", default="", help="the folder that `a2r run recipes/tiny` wrote")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_text(ROWS, "".join(json.dumps(one) + "\n" for one in collect(given.tiny)))


if __name__ == "__main__":
    main()
