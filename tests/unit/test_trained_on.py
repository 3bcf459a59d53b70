"""What a model was trained on is recorded, and an evaluation on it is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from a2r_train.data.trained_on import NAME, problem_hash, trainings, write_trained_on
from a2r_train.errors import InputError
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.overlap import check_overlap, models_of
from a2r_train.records import Bundle, Reference


def trained(folder: Path, base: str, stage: str, *problems: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    write_trained_on(folder, base, stage, f"{stage}.jsonl", problems)
    return str(folder)


def bundles(*problems: str, model: str = "") -> list[Bundle]:
    reference = [Reference("x", model=model)]
    return [
        Bundle(f"b{i}", f"p{i}", text, "1", "math", reference, 0, "", "incorrect")
        for i, text in enumerate(problems)
    ]


def config(**keys: Any) -> EvaluateConfig:
    return EvaluateConfig("test.jsonl", "out", **keys)


def test_a_text_is_the_same_in_other_case_and_spaces() -> None:
    assert problem_hash("What is  1 + 2?\n") == problem_hash("what is 1 + 2?")
    assert problem_hash("What is 1 + 2?") != problem_hash("What is 1 + 3?")


def test_the_chain_comes_along(tmp_path: Path) -> None:
    sft = trained(tmp_path / "sft", "nowhere", "SFT", "one", "two")
    grpo = trained(tmp_path / "grpo", sft, "GRPO", "three")
    (tmp_path / "sft" / NAME).unlink()  # as where the folder before it was moved away
    assert [(one.stage, len(one.problems)) for one in trainings(grpo)] == [("SFT", 2), ("GRPO", 1)]
    assert json.loads((tmp_path / "grpo" / NAME).read_text())["base_model"] == sft
    assert trainings("nowhere") == []


def test_a_checkpoint_has_the_record_of_its_folder_and_an_adapter_that_of_its_base(tmp_path: Path) -> None:
    sft = trained(tmp_path / "sft", "nowhere", "SFT", "one")
    (tmp_path / "sft" / "checkpoint-5").mkdir()
    assert trainings(f"{sft}/checkpoint-5") == trainings(sft)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": sft}))
    assert trainings(str(adapter)) == trainings(sft)


def test_a_broken_record_is_one_line(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("[]")
    with pytest.raises(InputError, match=f"{NAME}: not in the form that a training writes"):
        trainings(str(tmp_path))


@pytest.mark.parametrize("key", ["sft", "grpo", "no_references", "explorer_grpo", "explorer", "base"])
def test_an_overlap_with_any_model_of_the_table_is_refused(key: str, tmp_path: Path) -> None:
    sft = trained(tmp_path / "sft", "nowhere", "SFT", "One ", "two")
    last = trained(tmp_path / "last", sft, "GRPO", "four")
    tested = bundles("one", "three", "four")
    with pytest.raises(InputError, match=r"1 of 3 test problems .* read them in SFT, .*allow_overlap: true"):
        check_overlap(config(**{key: last}), tested)
    found = check_overlap(config(**{key: last}, allow_overlap=True), tested)
    assert [(one.stage, one.bundles, one.count) for one in found] == [
        ("SFT", "SFT.jsonl", 1),
        ("GRPO", "GRPO.jsonl", 1),
    ]
    assert check_overlap(config(**{key: last}), bundles("three")) == []


def test_an_explorer_that_the_bundles_name_counts_if_it_is_here(tmp_path: Path) -> None:
    explorer = trained(tmp_path / "explorer", "nowhere", "GRPO", "one")
    assert models_of(config(), bundles("one", model="owner/model")) == []
    with pytest.raises(InputError, match="1 of 1 test problems"):
        check_overlap(config(), bundles("one", model=explorer))


@pytest.mark.parametrize("text", ["Q: One", "one ?", "Problem 12. ONE"])
def test_a_lead_or_a_sign_does_not_hide_an_overlap(text: str, tmp_path: Path) -> None:
    sft = trained(tmp_path / "sft", "nowhere", "SFT", "One ", "two")
    with pytest.raises(InputError, match=r"1 of 2 test problems"):
        check_overlap(config(sft=sft), bundles(text, "three"))
