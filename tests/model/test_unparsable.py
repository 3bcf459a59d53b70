"""A wrong format is told from a weak model, in explore and in bundle."""

import json
from pathlib import Path

import pytest
from conftest import write_rows

from a2r_train.data.bundle import BundleConfig
from a2r_train.data.bundle import bundle as bundle_stage
from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.errors import InputError


def made_elsewhere(tmp_path: Path, *texts: str) -> str:
    rows = [
        {"problem": f"What is {i} + 1?", "answer": str(i + 1), "text": text, "model": "m"}
        for i in range(2)
        for text in texts
    ]
    return write_rows(tmp_path / "elsewhere.jsonl", rows)


def test_explore_says_how_many_texts_are_unparsable(
    tiny: str, problems: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = ExploreConfig(
        problems, tiny, str(tmp_path / "out"), samples_per_problem=2, max_completion_tokens=5
    )
    path = explore(config)
    summary = json.loads((path.parent / "done.json").read_text())
    assert summary["unparsable"] > 0.05
    (line,) = (text for text in caplog.messages if text.startswith(f"{path}: "))
    assert f"{summary['unparsable']:.1%} of 14 texts have no answer that can be read" in line
    assert "raise max_completion_tokens" in line  # all of them were cut
    assert any("pass@1" in text and "unparsable" in text for text in caplog.messages)


def test_a_format_that_cannot_be_read_is_not_called_a_weak_model(tmp_path: Path) -> None:
    rollouts = made_elsewhere(tmp_path, *["I would rather not say"] * 4)
    with pytest.raises(InputError) as refused:
        bundle_stage(BundleConfig(rollouts, str(tmp_path / "out")))
    line = str(refused.value)
    assert "100.0% of 8 texts have no answer that can be read, such as 'I would rather not say'" in line
    assert "say in the prompt file" in line
    assert "answer_pattern" in line
    assert "stronger model" not in line
    assert not (tmp_path / "out").exists()


def test_numbers_in_the_place_of_letters_are_said_to_be_there(tmp_path: Path) -> None:
    row = {
        "problem": "How many?",
        "A": "1",
        "B": "2",
        "answer": "B",
        "texts": [rf"\boxed{{{n}}}" for n in (3, 4)],
    }
    rollouts = write_rows(tmp_path / "r.jsonl", [row | {"problem": f"{i}?"} for i in range(9)])
    with pytest.raises(InputError) as refused:
        bundle_stage(BundleConfig(rollouts, str(tmp_path / "out"), k=2))
    assert "the answers are there, but none is what the verifier reads" in str(refused.value)
    assert "ask for the letter" in str(refused.value)
    assert "answer_pattern" not in str(refused.value)


def test_a_weak_model_is_called_one_where_its_texts_parse(tmp_path: Path) -> None:
    rollouts = made_elsewhere(tmp_path, *[rf"\boxed{{{100 + i}}}" for i in range(4)])
    with pytest.raises(InputError, match="explore with a stronger model or easier problems"):
        bundle_stage(BundleConfig(rollouts, str(tmp_path / "out")))


def test_the_card_of_bundles_has_the_share_and_a_sample(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [r"\boxed{1}", r"\boxed{2}", "It is `one`", r"\boxed{9}"]
    folder = bundle_stage(BundleConfig(made_elsewhere(tmp_path, *texts), str(tmp_path / "out")))
    text = (folder / "README.md").read_text()
    assert "Of 8 rollouts 25.0% are correct, 25.0% unparsable." in text
    assert "One of these ends in `It is 'one'`." in text
    assert any(line.startswith("rollouts of the train problems: 25.0% of 8") for line in caplog.messages)
