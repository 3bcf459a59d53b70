"""A checkpoint's card: when an evaluation may write into it, and what it writes."""

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.report.model_card import BEGIN, END, evaluated_problems, write_cards
from a2r_train.evaluate.report.write import build_results
from a2r_train.evaluate.rows.row import Row


def evaluated(folder: Path, problems: int, right: float, max_bundles: int = 0) -> str:
    scores = np.arange(problems) < right * problems
    rows = [Row("synthesizer/base", 0.0 * scores, 9.0), Row("synthesizer/sft", 1.0 * scores, 9.0)]
    results = build_results(rows, setup={"protocol": "P", "config": {"secret": 1}}, draws=50)
    config = EvaluateConfig("b/test.jsonl", "out", sft=str(folder), max_bundles=max_bundles)
    write_cards(config, results)
    path = folder / "README.md"
    return path.read_text() if path.exists() else ""


def test_the_table_comes_between_its_marks_and_is_that_of_the_last_whole_evaluation(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"# Mine\n\n## Evaluation\n\n{BEGIN}\nNot yet.\n{END}\n\n## Files\n")
    text = evaluated(tmp_path, 40, 0.5)
    assert "Not yet." not in text
    assert text.index("## Evaluation") < text.index("Training beats the untrained") < text.index("## Files")
    assert text.index("| synthesizer/base |") < text.index("### Paired differences")
    assert "secret" not in text
    again = evaluated(tmp_path, 60, 0.25)
    assert again.count(BEGIN) == again.count(END) == 1
    results = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert results is not None
    assert [(one.metric_value, evaluated_problems(one)) for one in results] == [(25.0, 60)]


@pytest.mark.parametrize(
    ("problems", "max_bundles", "reason"),
    [
        (40, 5, "this evaluation used only the first 5 bundles (max_bundles)"),
        (39, 0, "it holds an evaluation of 40 problems, and this one has 39"),
    ],
)
def test_a_smaller_evaluation_leaves_a_card_alone_and_says_so(
    problems: int, max_bundles: int, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = evaluated(tmp_path, 40, 0.5)
    assert before
    assert evaluated(tmp_path, problems, 0.0, max_bundles) == before
    assert caplog.messages == [f"{tmp_path / 'README.md'}: not updated: {reason}"]
    assert evaluated(tmp_path, 40, 0.0) != before  # an equal one is taken


def test_a_part_of_the_test_set_writes_no_first_card(tmp_path: Path) -> None:
    assert evaluated(tmp_path, 5, 0.5, max_bundles=5) == ""
