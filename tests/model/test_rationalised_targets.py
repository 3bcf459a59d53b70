"""SFT on targets that were made with the gold answer shown, and are trained on without it."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import bundle_with, options
from transformers import AutoTokenizer

from a2r_train.data.read import read
from a2r_train.engines import Completion, Engine
from a2r_train.prompts import Chat
from a2r_train.records import Problem, Synthesis, write
from a2r_train.train import sft, targets

KEYS: dict[str, Any] = {
    "max_steps": 2, "per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True,
    "activation_checkpointing": False, "target_samples": 2, "max_target_tokens": 40, "logging_steps": 1,
}  # fmt: skip


class Told(Engine):
    """An engine that solves problems of even number, and others under a hint, which every second answer
    mentions.
    """

    name, parameters = "told", 0

    def __init__(self, model: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.asked: list[str] = []

    def generate(self, chats: Sequence[Chat], _sampling: Any, _seeds: Sequence[int]) -> list[Completion]:
        self.asked += [chat[-1]["content"] for chat in chats]
        return [
            Completion(self._answer(at, chat[-1]["content"]), 9, 9, "stop") for at, chat in enumerate(chats)
        ]

    def _answer(self, at: int, asked: str) -> str:
        if "Hint: the answer is 5." in asked:
            return r"As in the hint, \boxed{5}" if at % 2 else r"2 + 3 = \boxed{5}"
        return rf"So {at}: \boxed{{5}}" if "number 0" in asked or "number 2" in asked else r"\boxed{6}"


@pytest.fixture
def given(tmp_path: Path, tiny: str) -> dict[str, Any]:
    found = [
        bundle_with(Problem(f"p{i}", f"What is number {i}?", "5"), ["7", "8"], f"b{i}") for i in range(4)
    ]
    write(found, tmp_path / "bundles.jsonl")
    return {
        "bundles": tmp_path / "bundles.jsonl",
        "model_name_or_path": tiny,
        "output_dir": tmp_path / "sft",
        **KEYS,
    }


def test_a_missed_bundle_is_asked_again_with_its_answer_and_trained_on_without(
    given: dict[str, Any], tiny: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine, rows = Told(tiny), list[dict[str, list[int]]]()
    made = targets.training_rows
    monkeypatch.setattr(targets, "load_engine", lambda *_, **__: engine)
    monkeypatch.setattr(sft, "training_rows", lambda *some: rows.extend(made(*some)) or made(*some))
    assert sft.main(options({**given, "rationalised_share": 0.3})) == 0
    found = read(Synthesis, str(given["output_dir"] / "targets.jsonl"))
    marked = [s for s in found if s.rationalised]
    assert [s.bundle_id for s in found if not s.rationalised] == ["b0", "b0", "b2", "b2"]
    assert len(marked) == 1  # of 5 targets at most 30 %
    assert marked[0].bundle_id in ("b1", "b3")
    assert marked[0].text == r"2 + 3 = \boxed{5}"
    lines = (given["output_dir"] / "targets.jsonl").read_text().splitlines()
    assert sum("rationalised" in json.loads(line) for line in lines) == 1
    assert sum("Hint:" in asked for asked in engine.asked) == 4
    texts = [engine.tokenizer.decode(row["input_ids"]) for row in rows]
    assert len(texts) == 5
    assert not [text for text in texts if "hint" in text.lower()]
    assert "of 4 answers 2 do not mention it, 2 of those are correct and different, 1 kept" in caplog.text
    says = "5 verified answers to 4 bundles, 1 of them rationalised: the gold answer was shown"
    assert says in (given["output_dir"] / "README.md").read_text()


def test_none_is_made_by_default(given: dict[str, Any], tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Told(tiny)
    monkeypatch.setattr(targets, "load_engine", lambda *_, **__: engine)
    assert sft.main(options(given)) == 0
    assert not any("Hint:" in asked for asked in engine.asked)
    assert "rationalised" not in (given["output_dir"] / "targets.jsonl").read_text()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"rationalised_share": 1.0}, "expected 0 or more, and less than 1"),
        ({"rationalised_share": 0.2, "targets": "t.jsonl"}, "remove one"),
        ({"rationalised_hint": "no slot"}, "lacks {answer}; add it where"),
        ({"rationalised_hint": "It is {answer}."}, "not used without rationalised_share"),
    ],
)
def test_what_makes_no_sense_is_refused(
    given: dict[str, Any], keys: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft.main(options({**given, **keys})) == 2
    assert says in capsys.readouterr().err
