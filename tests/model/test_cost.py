"""Cost: FLOPs by hand, prices, measured seconds, the Pareto front, and the sentence about the monolith."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Script

from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, cost, evaluate
from a2r_train.evaluate.report import plots
from a2r_train.evaluate.rows.row import Part
from a2r_train.models import Size, size_of


def test_flops_by_hand() -> None:
    """1000 parameters, 2 layers of attention width 8; 10 tokens are read and two completions of 5 written."""
    size = Size(1000, 2, 8)
    read = 2 * 1000 * 10 + 4 * 2 * 8 * (10**2 / 2)
    write = 2 * 1000 * 5 + 4 * 2 * 8 * (15**2 - 10**2) / 2
    assert cost.flops(size, Part("m", 10, 5, completions=2)) == read + 2 * write
    assert cost.flops(size, Part("m", 10, 5)) + cost.flops(size, Part("m", 15, 5)) > cost.flops(
        size, Part("m", 10, 10)
    )


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


def results_of(
    costs: dict[str, tuple[float, float]], sweep: dict[int, tuple[float, float]] | None = None
) -> dict[str, Any]:
    points = {f"synthesizer/sft k={k}": point for k, point in (sweep or {}).items()}
    rows = {name: {"flops": flops, "dollars": None} for name, (_, flops) in (costs | points).items()}
    table = [
        {"name": n, "accuracy": a, "note": "oracle: any" if "pass" in n else ""}
        for n, (a, _) in costs.items()
    ]
    swept = [{"name": name, "accuracy": accuracy} for name, (accuracy, _) in points.items()]
    return {"rows": table, "diagnostics": {"cost": rows, "k_sweep": swept}}


def test_the_front_leaves_out_what_is_dearer_and_worse_and_the_oracle() -> None:
    table = {"a": (0.2, 1.0), "b": (0.5, 2.0), "worse": (0.4, 3.0), "c": (0.6, 4.0), "pass@4": (0.9, 1.5)}
    found = cost.pareto(results_of(table))
    assert found["front"] == ["a", "b", "c"]
    svg = plots.pareto(found)
    assert all(f">{name}<" in svg for name in ("a", "b", "worse", "c"))
    assert "pass@4" not in svg
    assert "mathdefault" not in svg  # the scale's numbers are text, as formulas are not drawn
    assert ">1e+00<" in svg
    together = plots.pareto(
        cost.pareto(results_of({"a": (0.2, 1.0), "monolith": (0.5, 2.0), "b": (0.5, 2.0)}))
    )
    assert ">monolith, b<" in together


def test_the_sentence_says_at_which_cost_the_monolith_is_reached() -> None:
    table = {"monolith": (0.5, 100.0), "synthesizer/base": (0.45, 60.0), "synthesizer/sft": (0.6, 80.0)}
    base, sft = cost.monolith_sentences(results_of(table, {2: (0.52, 40.0), 8: (0.62, 120.0)}))
    assert base == (
        "The pair with synthesizer/base does not reach the monolith's "
        "accuracy (50.0 %) at any measured cost; "
        "synthesizer/base has 45.0 % at 60 % of its FLOPs."
    )
    assert sft == (
        "The pair with synthesizer/sft reaches the monolith's accuracy (50.0 %) at 40 % of its FLOPs: "
        "synthesizer/sft k=2, 52.0 %."
    )
    del table["monolith"]
    assert cost.monolith_sentences(results_of(table)) == []


def test_a_real_panel_says_the_sentence(config: EvaluateConfig, script: Script) -> None:
    script(lambda _: "\\boxed{3}")
    config = replace(config, monolith=config.explorer, temperature=0.0)
    evaluate(config)
    text = (Path(config.output_dir) / "report.md").read_text()
    assert "The pair with synthesizer/base reaches the monolith's accuracy (14.3 %)" in text
    assert "## Cost of an answer" in text
    assert "Accuracy against cost" in (Path(config.output_dir) / "report.html").read_text()
