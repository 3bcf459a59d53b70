"""The tables of docs/results/levers-1.5b.md at equal GPU-seconds have the figures of their files."""

import re
from collections import defaultdict
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from test_results import ROOT, rows_of, table_of

from a2r_train.evaluate.statistics import paired

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
    "contested only": "contested",
    "dynamic sampling": "dynamic",
    "solve, judge, answer": "judge",
}
MODELS = {
    **CURVES,
    "the untrained model": "untrained",
    "SFT alone": "sft",
    "SFT alone, rationalised": "sft-rationalised",
    "after SFT, rationalised (1,000 bundles)": "sft-rationalised-grpo",
    "solve, judge, answer: SFT alone": "judge-sft",
    "maj@4": "vote",
}
RIVALS = {"answers-1": "none-1"}  # of the same seed; all others have none-0


def shown(points: float) -> Any:
    return pytest.approx(points, abs=0.0501)


def test_the_settings_took_what_their_curves_say() -> None:
    logged = rows_of(FOLDER / "equal-seconds-curves.jsonl")
    _, lines = table_of(PAGE, r"setting \| bundles")
    assert [line[0] for line in lines] == list(CURVES)
    for name, _, seconds, steps, tokens, silent, lengths, reward in lines:
        curve = [row for row in logged if row["arm"] == CURVES[name]]
        length = [row["completions/mean_length"] for row in curve]
        unsolved = [row["reward/n_correct=0"] for row in curve if "reward/n_correct=0" in row]
        assert int(seconds) == curve[-1]["train_seconds"]
        assert (int(steps), tokens) == (len(curve), f"{curve[-1]['generated_tokens'] / 1e6:.2f}M")
        if name == "dynamic sampling":
            dropped = curve[-1]["dynamic_sampling/dropped_tokens"] / curve[-1]["generated_tokens"]
            assert 0.49 < dropped < 0.51
            made = 1 - fmean(row["dynamic_sampling/signal"] for row in curve)
            assert silent == f"{100 * made:.0f} % of those made"
        else:
            assert silent == f"{100 * fmean(row['frac_reward_zero_std'] for row in curve):.0f} %"
        assert lengths == f"{fmean(length[:3]):.0f}, {fmean(length[-3:]):.0f}"
        assert reward == f"{fmean(unsolved):.2f}"


def test_the_accuracies_are_those_of_the_bundles() -> None:
    bundles = rows_of(FOLDER / "equal-seconds.jsonl.xz")
    assert len(bundles) == 1200
    _, lines = table_of(PAGE, r"setting \| accuracy")
    assert len(lines) == 16
    for name, accuracy, unsolved, against in lines:
        model = MODELS[name]
        read = [row for row in bundles if model in row]
        rival = RIVALS.get(model, "none-0")
        assert float(accuracy) == shown(100 * fmean(row[model] for row in read))
        assert float(unsolved) == shown(100 * fmean(row[model] for row in read if row["n_correct"] == 0))
        if against:
            by_problem: defaultdict[str, list[int]] = defaultdict(list)
            for row in read:
                by_problem[row["bundle_id"].rpartition("/")[0]].append(row[model] - row[rival])
            differences = np.array([fmean(some) for some in by_problem.values()])
            found = paired(differences, np.zeros(len(differences)))
            interval = [100 * value for value in (found.difference, found.low, found.high)]
            said = [float(number) for number in re.findall(r"[+-][\d.]+", against)]
            assert said[0] == shown(interval[0])
            assert said[1:] == pytest.approx(interval[1:], abs=0.25)  # of another bootstrap


def test_the_accuracies_over_more_references_are_those_of_the_bundles() -> None:
    models = {  # by line of the table: of four, eight and sixteen references
        "untrained": ("untrained", "untrained", "untrained"),
        "none": ("none-0", "none-0", "none-0-again"),
        "2 to 8 references": ("range", "range", "range-again"),
        "answers alone, untrained": ("", "", "untrained-answers"),
        "answers alone": ("answers-0", "answers-0", ""),
        "[answers alone, 100 steps from the explorer](answers-alone.md)": ("", "", "answers-100-steps"),
        "the vote": ("vote", "vote", "vote"),
    }
    files = ("equal-seconds", "equal-seconds-eight", "equal-seconds-sixteen")
    bundles = [rows_of(FOLDER / f"{name}.jsonl.xz") for name in files]
    assert [len(rows) for rows in bundles] == [1200, 600, 600]
    _, lines = table_of(PAGE, r"model \| 4")
    assert [name for name, *_ in lines] == list(models)
    compared = 0
    for name, *shown_values in lines:
        for value, model, rows in zip(shown_values, models[name], bundles, strict=True):
            if model:
                assert float(value) == shown(100 * fmean(row[model] for row in rows))
                compared += 1
    assert compared == 16


def test_verdicts_and_own_solutions_are_those_of_the_bundles() -> None:
    bundles = rows_of(FOLDER / "equal-seconds.jsonl.xz")
    own, aucs, right_called_right, wrong_called_right = [], [], [], []
    for model in ("judge-sft", "judge"):
        own.append(f"{100 * fmean(row[f'{model}-own'] for row in bundles):.1f}")
        said = {"1": 1.0, "0": 0.0, "-": 0.5}
        scored = [
            [
                (so == "1", said[word])
                for so, word in zip(row["references"], row[f"{model}-verdicts"], strict=True)
            ]
            for row in bundles
        ]
        pairs = [
            (right > wrong) + (right == wrong) / 2
            for row in scored
            for is_right, right in row
            if is_right
            for is_wrong_right, wrong in row
            if not is_wrong_right
        ]
        assert len(pairs) == 2009
        aucs.append(round(100 * fmean(pairs)))
        calls = [pair for row in scored for pair in row]
        right_called_right.append(round(100 * fmean(value == 1 for is_right, value in calls if is_right)))
        wrong_called_right.append(round(100 * fmean(value == 1 for is_right, value in calls if not is_right)))
    assert aucs == [50, 50]
    text = " ".join((ROOT / PAGE).read_text(encoding="utf-8").split())
    assert f"is right in {own[0]} % of the bundles after SFT, and in {own[1]} after GRPO." in text
    first, then = zip(right_called_right, wrong_called_right, strict=True)
    assert f"it calls {first[0]} % of the right references right, and {first[1]} % of the wrong ones." in text
    assert f"everything right: {then[0]} % of the right references and {then[1]} % of the wrong ones." in text


def test_contested_bundles_alone_are_read_as_the_page_says() -> None:
    bundles = rows_of(FOLDER / "equal-seconds.jsonl.xz")
    with_votes = {
        model: f"{100 * fmean(row['vote'] if row['unanimous'] else row[model] for row in bundles):.1f}"
        for model in ("contested", "none-0")
    }
    text = " ".join((ROOT / PAGE).read_text(encoding="utf-8").split())
    assert f"accuracy is {with_votes['contested']} % again. With *none* it is {with_votes['none-0']}." in text


def test_the_entropies_are_those_of_the_curves() -> None:
    logged = rows_of(FOLDER / "equal-seconds-curves.jsonl")
    answers, none = (
        fmean(row["entropy"] for row in logged if row["arm"].startswith(arm)) for arm in ("answers", "none")
    )
    text = " ".join((ROOT / PAGE).read_text(encoding="utf-8").split())
    assert f"the mean entropy is {answers:.2f} instead of {none:.2f}." in text
