"""An evaluation with a prompt in sections, whose texts are written by hand; and its table made anew."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import bundle_row, write_rows
from test_section_training import PROMPT, WRITTEN
from transformers import AutoTokenizer

from a2r_train.engines.base import Completion
from a2r_train.evaluate import EvaluateConfig, answers, evaluate
from a2r_train.evaluate.kept import rescore
from a2r_train.records import Problem


def test_verdicts_are_told_and_the_table_comes_again(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is read from its section, where the own solution is another."""
    monkeypatch.chdir(tmp_path)
    Path("prompt.yaml").write_text(PROMPT)
    rows = [bundle_row(Problem(f"p{i}", f"{i} more?", "5"), ["5", "7"], f"p{i}/0") for i in range(4)]
    text = WRITTEN.replace("5}", "6}", 1)

    def generate_batches(batches: Iterable[Any], _: Any) -> Iterator[list[Completion]]:
        for chats, _ in batches:
            yield [Completion(text, 9, 9, "stop") for _ in chats]

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    asked: list[str] = []

    def next_tokens(prompts: list[list[int]]) -> list[dict[str, float]]:
        asked.extend(tokenizer.decode(prompt) for prompt in prompts)
        return [{" right": 0.3, " wrong": 0.1 * at, "!": 0.1} for at in range(len(prompts))]

    engine = SimpleNamespace(
        name=tiny,
        parameters=9,
        tokenizer=tokenizer,
        generate_batches=generate_batches,
        next_tokens=next_tokens,
    )
    monkeypatch.setattr(answers, "load_engine", lambda *_, **__: engine)
    config = EvaluateConfig(
        bundles=write_rows(tmp_path / "bundles.jsonl", rows),
        output_dir="out",
        base=tiny,
        prompt="prompt.yaml",
        temperature=0,
    )
    results = evaluate(config)
    accuracy = {row["name"]: row["accuracy"] for row in results["rows"]}
    assert accuracy["synthesizer/base"] == accuracy["synthesizer/base/verdict-vote"] == 1
    assert results["diagnostics"]["verdicts"] == {
        "synthesizer/base": {
            "complete": 1.0,
            "own_solution": 0.0,
            "right_called_right": 1.0,
            "wrong_called_wrong": 1.0,
            "unsaid": 0.0,
            "auc": 1.0,
            "pairs": 4,
            "sure_auc": 1.0,
        }
    }
    first, second = (text.rpartition("\n")[2] for text in asked[:2])
    assert (first, second) == ("Reference 1:", "Reference 2:")
    made = [json.loads(line) for line in next(Path("out/syntheses").glob("*-base/0*.jsonl")).open()]
    assert made[0]["verdict_probabilities"] == [1.0, 0.75]
    assert json.loads(Path("out/manifest.json").read_text())["prompts"][tiny]["sections"]["answer"] == "Final"
    assert rescore(Path("out")).said == []


def test_references_that_were_read_by_a_pattern_are_read_by_it_again(tmp_path: Path) -> None:
    def said(answer: str) -> str:
        return f"So.\n<answer>{answer}</answer>"

    row = bundle_row(Problem("p0", "4 more?", "5"), ["5", "7"], "p0/0")
    row["references"] = [one | {"text": said(one["answer"])} for one in row["references"]]
    rollouts = [
        {"problem_id": "p0", "sample": at, "text": said(one["answer"]), "completion_tokens": 9}
        for at, one in enumerate(row["references"])
    ]
    (tmp_path / "prompt.yaml").write_text('answer_pattern: "<answer>(.*?)</answer>"\n')
    config = EvaluateConfig(
        bundles=write_rows(tmp_path / "bundles.jsonl", [row]),
        rollouts=write_rows(tmp_path / "rollouts.jsonl", rollouts),
        output_dir=str(tmp_path / "out"),
        prompt=str(tmp_path / "prompt.yaml"),
    )
    assert {row["name"]: row["accuracy"] for row in evaluate(config)["rows"]}["pass@1"] == 0.5
    assert rescore(tmp_path / "out").said == []
