"""Cost: FLOPs by hand, prices, measured seconds, the Pareto front, and the sentence about the monolith."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Script

from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, cost, evaluate
from a2r_train.evaluate.rows.row import Part
from a2r_train.models import Size, size_of


def test_the_size_is_what_multiplies(tiny: str) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny)
    embedding = model.get_input_embeddings().weight.numel()
    assert size_of(tiny) == Size(model.num_parameters() - embedding, 1, 32)
    assert size_of("/nowhere/at/all") is None


def test_every_row_has_its_cost(config: EvaluateConfig, tmp_path: Path, tiny: str) -> None:
    (tmp_path / "prices.yaml").write_text(json.dumps({config.base: {"prompt": 30, "completion": 40}}))
    timing = {"seconds": 12.0, "rollouts": 48, "device": "cpu"}
    (tmp_path / "timing-0-of-1.json").write_text(json.dumps(timing))
    (tmp_path / "timing-1-of-2.json").write_text(json.dumps({**timing, "seconds": 24.0}))
    config = replace(config, prices=str(tmp_path / "prices.yaml"), temperature=0.0)
    results = evaluate(config)
    rows = results["diagnostics"]["cost"]
    timing = json.loads((Path(config.output_dir) / "timing.json").read_text())
    seconds = timing["seconds"]
    assert rows.keys() == seconds.keys()
    assert all(rows[name]["flops"] > 0 and seconds[name] > 0 for name in rows)
    assert seconds["pass@1"] == pytest.approx(36 / 96)
    assert seconds["maj@4"] == pytest.approx(4 * 36 / 96)
    assert seconds["synthesizer/base"] > seconds["maj@4"]
    assert (
        rows["maj@4"]["dollars"] is rows["synthesizer/base"]["dollars"] is None
    )  # the explorer has no price
    read = [
        s
        for p in Path(config.output_dir).glob("syntheses/synthesizer-alone/*.jsonl")
        for s in p.read_text().splitlines()
    ]
    means = [
        sum(json.loads(line)[key] for line in read) / 7 for key in ("prompt_tokens", "completion_tokens")
    ]
    assert rows["synthesizer/alone"]["dollars"] == pytest.approx(
        (30 * means[0] + 40 * means[1]) / 1000, rel=1e-5
    )
    size = size_of(tiny)
    assert size is not None
    tokens = next(row["tokens"] for row in results["rows"] if row["name"] == "pass@1")
    assert rows["pass@1"]["flops"] == pytest.approx(cost.flops(size, Part("", 20, tokens)), rel=1e-5)
    assert any("batch size 64" in place for place in timing["hardware"])


def test_a_wrong_price_table_is_refused(config: EvaluateConfig, tmp_path: Path) -> None:
    for text, says in (
        ("m: 3", "expected {prompt: 0.1, completion: 0.4}"),
        ("m: {prompt: a, completion: 1}", "two numbers"),
    ):
        (tmp_path / "prices.yaml").write_text(text)
        with pytest.raises(InputError, match=says):
            evaluate(replace(config, prices=str(tmp_path / "prices.yaml")))
    assert not Path(config.output_dir).exists()


def test_a_real_panel_says_the_sentence(config: EvaluateConfig, script: Script) -> None:
    script(lambda _: "\\boxed{3}")
    config = replace(config, monolith=config.explorer, temperature=0.0)
    evaluate(config)
    text = (Path(config.output_dir) / "report.md").read_text()
    assert "The pair with synthesizer/base reaches the monolith's accuracy (14.3 %)" in text
    assert "## Cost of an answer" in text
    assert "Accuracy against cost" in (Path(config.output_dir) / "report.html").read_text()
