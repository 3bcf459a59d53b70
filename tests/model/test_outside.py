"""Rollouts made elsewhere: rows without generation, and our verdicts against the labels that came along."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import a2r, write_rows

from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate


def foreign(problem: int, given: int, label: Any, model: str) -> dict[str, Any]:
    text = f"I think it is \\boxed{{{given}}}"
    return {
        "problem": f"What is {problem} + 0?",
        "answer": str(problem),
        "text": text,
        "is_correct": label,
        "model": model,
    }


ROWS = [
    *(foreign(1, n, n == 1, "big") for n in (1, 1, 2)),
    *(foreign(2, n, n == 2, "big") for n in (2, 3, 3)),
    *(foreign(3, n, n == 3, "small") for n in (4, 4, 5)),
    foreign(4, 4, False, "small"),  # the label is wrong, and this problem has too few rollouts for a bundle
    foreign(4, 4, None, "small"),
]


@pytest.mark.parametrize("column", ["completion", "response", "completions", "generations"])
def test_a_column_of_texts_may_have_any_name_that_bundle_reads(column: str, tmp_path: Path) -> None:
    texts = ["\\boxed{1}", "\\boxed{1}", "\\boxed{2}"]
    shown = [texts] if column.endswith("s") else texts
    rows = [{"problem": "What is 1 + 0?", "answer": "1", column: one} for one in shown]
    path = write_rows(tmp_path / "foreign.jsonl", rows)
    results = evaluate(EvaluateConfig(path, str(tmp_path / "out"), k=3, draws=50))
    assert results["rows"][0]["accuracy"] == pytest.approx(2 / 3, abs=1e-6)


def test_programs_without_a_usable_test_are_left_out(tmp_path: Path) -> None:
    row = {"text": "Write f.", "code": "def f(a):\n    return a", "generations": ["```python\nx\n```"] * 3}
    tested = {**row, "task_id": 1, "test_list": ["assert f(1) == 1"]}
    rows = [tested, {**row, "task_id": 2, "test_list": ["assert f(g) == 1"]}]
    path = write_rows(tmp_path / "foreign.jsonl", rows)
    results = evaluate(EvaluateConfig(path, str(tmp_path / "out"), k=3, draws=50))
    assert results["diagnostics"]["outside"]["problems"] == 1


def test_answers_in_tags_are_found_by_the_recipes_pattern(tmp_path: Path) -> None:
    rows = [row | {"text": f"So.\n<answer>{row['answer']}</answer>"} for row in ROWS[:3]]
    path = write_rows(tmp_path / "foreign.jsonl", rows)
    (tmp_path / "prompt.yaml").write_text('answer_pattern: "<answer>(.*?)</answer>"\n')
    given = EvaluateConfig(path, str(tmp_path / "out"), k=3, draws=50, prompt=str(tmp_path / "prompt.yaml"))
    plain = replace(given, output_dir=str(tmp_path / "plain"), prompt="")
    assert [evaluate(one)["rows"][0]["accuracy"] for one in (given, plain)] == [1, 0]


def test_rows_agreement_and_disagreements(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_rows(tmp_path / "foreign.jsonl", ROWS)
    config = EvaluateConfig(path, str(tmp_path / "out"), k=3, draws=50)
    results = evaluate(config)
    assert f"{path}: 1 of 4 problems have fewer than 3 rollouts and are left out" in caplog.messages
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == ["pass@1", "pass@3", "maj@3"]
    assert [row["accuracy"] for row in rows.values()] == pytest.approx([1 / 3, 2 / 3, 1 / 3], abs=1e-6)
    outside = results["diagnostics"]["outside"]
    models = {model: (one["rollouts"], one["agreement"]) for model, one in outside["models"].items()}
    assert models == {"big": (6, 1.0), "small": (5, 0.75)}
    assert outside["models"]["big"]["accuracy"] == 0.5
    assert (
        outside["labelled"],
        outside["differing"],
        outside["label_right"],
        outside["without_a_bundle"],
    ) == (10, 1, 0, 1)
    assert outside["disagreements"] == [
        {
            "problem": "What is 4 + 0?",
            "gold": "4",
            "answer": "4",
            "verdict": "correct",
            "label": False,
            "model": "small",
        }
    ]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Our verdicts agree with the given labels on 9 of 10 rollouts (90.00 %)" in report
    assert "- 1 of 4 problems have too few rollouts for a bundle and are left out." in report
    assert "## Where our verdict and the given label differ" in report
    assert evaluate(config) == results


def test_the_command_prints_the_agreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "foreign.jsonl", ROWS)
    arguments = ["--bundles", path, "--output_dir", str(tmp_path / "out"), "--k", "3", "--draws", "50"]
    monkeypatch.setenv("COLUMNS", "200")
    assert a2r("evaluate", *arguments) == 0
    shown = capfd.readouterr().out
    assert "agree with the given labels on 9 of 10 rollouts" in shown
    assert "1 of 4 problems have too few rollouts for a bundle and are left out." in shown
    assert "maj@3" in shown


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "foreign.jsonl", ROWS)
    config = EvaluateConfig(path, str(tmp_path / "out"), k=4)
    with pytest.raises(InputError, match="no problem has 4 rollouts; lower k"):
        evaluate(config)
    (tmp_path / "foreign.jsonl").write_text(json.dumps(foreign(1, 1, "perhaps", "m")) + "\n")
    with pytest.raises(InputError, match=r"foreign.jsonl:1: is_correct is 'perhaps'; expected true or false"):
        evaluate(replace(config, k=1))
    assert not Path(config.output_dir).exists()


@pytest.mark.parametrize("names", [("text", "texts"), ("texts",)])
def test_a_row_may_hold_several_texts(names: tuple[str, ...], tmp_path: Path) -> None:
    """With a label for each of them, or none."""
    texts = [rf"\boxed{{{n}}}" for n in (5, 5, 6)]
    row = {"problem": "2 + 3?", "answer": "5"} | {name: texts if name == "texts" else None for name in names}
    path = tmp_path / "foreign.jsonl"
    for label, outcome in ((None, (0, 0)), ([True, False, None], (2, 1)), ("[true, true, false]", (3, 0))):
        write_rows(path, [row | {"is_correct": label}, foreign(9, 9, None, "")])
        results = evaluate(EvaluateConfig(str(path), str(tmp_path / f"out-{label}"), k=3, draws=50))
        outside = results["diagnostics"]["outside"]
        assert (outside["labelled"], outside["differing"]) == outcome
        assert results["rows"][0]["accuracy"] == pytest.approx(2 / 3, abs=1e-5)
    for label, shown in ((True, "True"), ([True], r"\[True\]")):
        write_rows(path, [row | {"is_correct": label}])
        with pytest.raises(InputError, match=rf"1: is_correct is {shown}, but the row has 3 texts; expec"):
            evaluate(EvaluateConfig(str(path), str(tmp_path / "out"), k=3))


@pytest.mark.parametrize("name", ["generations", "completions"])
def test_texts_may_have_their_other_names_and_a_label_that_is_named_must_be_there(
    name: str, tmp_path: Path
) -> None:
    row = {"problem": "2 + 3?", "answer": "5", name: [r"\boxed{5}", r"\boxed{6}"], "right": [True, False]}
    path = write_rows(tmp_path / "foreign.jsonl", [row])
    results = evaluate(EvaluateConfig(path, str(tmp_path / "out"), k=2, draws=50, label="right"))
    assert results["diagnostics"]["outside"]["labelled"] == 2
    with pytest.raises(InputError, match="no column 'wright' for `label`; the columns are answer"):
        evaluate(EvaluateConfig(path, str(tmp_path / "other"), k=2, draws=50, label="wright"))


def test_a_synthesizer_reads_them_too(tmp_path: Path, tiny: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of references whose tokens nobody has counted no cost is given, which would be the synthesizer's
    alone.
    """
    path = write_rows(
        tmp_path / "foreign.jsonl", [{k: v for k, v in row.items() if k != "is_correct"} for row in ROWS]
    )
    results = evaluate(
        EvaluateConfig(path, str(tmp_path / "out"), tiny, k=2, draws=50, max_completion_tokens=4)
    )
    assert {row["name"]: row["n"] for row in results["rows"]}["synthesizer/base"] == 4
    assert results["diagnostics"]["outside"]["labelled"] == 0
    tokens = {row["name"]: row["tokens"] for row in results["rows"]}
    alone = {"synthesizer/alone", "synthesizer/alone@T"}
    assert {name for name, count in tokens.items() if count is not None} == alone
    assert {name for name, one in results["diagnostics"]["cost"].items() if one["flops"] is not None} == alone
    assert caplog.messages[-1].startswith(f"{path}: no token counts")
