"""The tables of docs/results/levers-1.5b.md at equal GPU-seconds have the figures of their files."""

from statistics import fmean
from typing import Any

import pytest
from test_results import ROOT, rows_of, table_of

PAGE = "docs/results/levers-1.5b.md"
FOLDER = ROOT / "data/results/gsm8k-levers-1.5b"
CURVES = {
    "none": "none-0",
    "none, seed 1": "none-1",
    "answers alone": "answers-0",
    "answers alone, seed 1": "answers-1",
    "by pattern": "pattern",
    "2 to 8 references": "range",
    "after SFT": "sft-grpo",
    "after SFT, rationalised": "sft-rationalised-grpo",
}
MODELS = {
    **CURVES,
    "the untrained model": "untrained",
    "SFT alone": "sft",
    "SFT alone, rationalised": "sft-rationalised",
    "after SFT, rationalised (1,000 bundles)": "sft-rationalised-grpo",
    "maj@4": "vote",
}
RIVALS = {"answers-1": "none-1"}  # of the same seed; all others have none-0


def shown(points: float) -> Any:
    return pytest.approx(points, abs=0.0501)


def test_the_settings_took_what_their_curves_say() -> None:
    logged = rows_of(FOLDER / "equal-seconds-curves.jsonl")
    _, lines = table_of(PAGE, r"setting \| bundles")
    assert [line[0] for line in lines] == list(CURVES)
    for name, _, steps, tokens, silent, lengths, reward in lines:
        curve = [row for row in logged if row["arm"] == CURVES[name]]
        length = [row["completions/mean_length"] for row in curve]
        unsolved = [row["reward/n_correct=0"] for row in curve if "reward/n_correct=0" in row]
        assert (int(steps), tokens) == (len(curve), f"{curve[-1]['generated_tokens'] / 1e6:.2f}M")
        assert silent == f"{100 * fmean(row['frac_reward_zero_std'] for row in curve):.0f} %"
        assert lengths == f"{fmean(length[:3]):.0f}, {fmean(length[-3:]):.0f}"
        assert reward == f"{fmean(unsolved):.2f}"


def test_the_accuracies_are_those_of_the_bundles() -> None:
    bundles = rows_of(FOLDER / "equal-seconds.jsonl.xz")
    assert len(bundles) == 1200
    _, lines = table_of(PAGE, r"setting \| accuracy")
    assert len(lines) == 12
    for name, accuracy, unsolved, against in lines:
        model = MODELS[name]
        read = [row for row in bundles if model in row]
        rival = RIVALS.get(model, "none-0")
        assert float(accuracy) == shown(100 * fmean(row[model] for row in read))
        assert float(unsolved) == shown(100 * fmean(row[model] for row in read if row["n_correct"] == 0))
        if against:
            difference = 100 * fmean(row[model] - row[rival] for row in read)
            assert float(against.split()[0]) == shown(difference)


def test_the_accuracies_over_eight_references_are_those_of_the_bundles() -> None:
    bundles = rows_of(FOLDER / "equal-seconds-eight.jsonl.xz")
    right = {
        name: f"{100 * fmean(row[name] for row in bundles):.1f}"
        for name in ("untrained", "none-0", "range", "answers-0", "vote")
    }
    text = " ".join((ROOT / PAGE).read_text(encoding="utf-8").split())
    assert (
        f"untrained model has {right['untrained']} %, *none* {right['none-0']}, *2 to 8 references* "
        f"{right['range']} and *answers alone* {right['answers-0']}. The vote of eight has {right['vote']}."
    ) in text


def test_the_entropies_are_those_of_the_curves() -> None:
    logged = rows_of(FOLDER / "equal-seconds-curves.jsonl")
    answers, none = (
        fmean(row["entropy"] for row in logged if row["arm"].startswith(arm)) for arm in ("answers", "none")
    )
    text = " ".join((ROOT / PAGE).read_text(encoding="utf-8").split())
    assert f"the mean entropy is {answers:.2f} instead of {none:.2f}." in text
