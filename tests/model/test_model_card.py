"""The evaluation in a checkpoint's README, in the hub's own form, after a real run."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load, model_index_to_eval_results

from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate.report.model_card import BEGIN


def test_a_checkpoint_carries_its_evaluation(config: EvaluateConfig, tmp_path: Path) -> None:
    folder = copytree(config.base, tmp_path / "trained")
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\ntags:\n- a2r-train\n---\n# Mine\n\nHow it was made.\n"
    )
    config = replace(config, sft=str(folder), cards=True)
    results = evaluate(config)
    rows = {row["name"]: row for row in results["rows"]}
    loaded = ModelCard.load(folder / "README.md")  # the hub's own reader refuses a broken model-index
    found = loaded.data.eval_results
    assert found is not None
    assert [(one.metric_type, one.metric_name, one.metric_value) for one in found] == [
        ("accuracy", f"accuracy of {name} in %", pytest.approx(100 * rows[name]["accuracy"], abs=0.01))
        for name in ("synthesizer/sft", "synthesizer/sft@T")
    ]
    metadata = metadata_load(folder / "README.md")
    assert metadata is not None
    name, again = model_index_to_eval_results(metadata["model-index"])
    assert (name, again) == ("trained", found)
    assert (metadata["license"], metadata["tags"]) == ("apache-2.0", ["a2r-train"])
    assert loaded.text.startswith("# Mine\n\nHow it was made.")
    assert "| synthesizer/sft |" in loaded.text
    before = (folder / "README.md").read_text()
    evaluate(config)
    assert (folder / "README.md").read_text() == before
    assert before.count(BEGIN) == 1


def test_a_base_model_and_a_switched_off_card_stay_as_they_are(
    config: EvaluateConfig, tmp_path: Path
) -> None:
    folder = copytree(config.base, tmp_path / "trained")
    evaluate(replace(config, sft=str(folder), cards=False, temperature=0.0))
    assert not (folder / "README.md").exists()
    evaluate(
        replace(config, sft=str(folder), cards=True, temperature=0.0, output_dir=f"{config.output_dir}2")
    )
    assert (folder / "README.md").exists()
    assert not (Path(config.base) / "README.md").exists()
