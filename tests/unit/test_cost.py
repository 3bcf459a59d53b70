"""What an answer costs: operations by hand, the front of cost and accuracy, and the sentence."""

from typing import Any

from a2r_train.evaluate import cost
from a2r_train.evaluate.report import plots
from a2r_train.evaluate.rows.row import Part
from a2r_train.models import Size


def test_flops_by_hand() -> None:
    """1000 parameters, 2 layers of attention width 8; 10 tokens are read and two completions of 5 written."""
    size = Size(1000, 2, 8)
    read = 2 * 1000 * 10 + 4 * 2 * 8 * (10**2 / 2)
    write = 2 * 1000 * 5 + 4 * 2 * 8 * (15**2 - 10**2) / 2
    assert cost.flops(size, Part("m", 10, 5, completions=2)) == read + 2 * write
    assert cost.flops(size, Part("m", 10, 5)) + cost.flops(size, Part("m", 15, 5)) > cost.flops(
        size, Part("m", 10, 10)
    )


def results_of(
    costs: dict[str, tuple[float, float]], sweep: dict[int, tuple[float, float]] | None = None
) -> dict[str, Any]:
    points = {f"synthesizer/sft k={k}": point for k, point in (sweep or {}).items()}
    rows = {name: {"flops": flops, "dollars": None} for name, (_, flops) in (costs | points).items()}
    table = [
        {"name": n, "accuracy": a, "n": 90, "note": "oracle: any" if "pass" in n else ""}
        for n, (a, _) in costs.items()
    ]
    swept = [{"name": name, "accuracy": accuracy, "n": 90} for name, (accuracy, _) in points.items()]
    return {"rows": table, "diagnostics": {"cost": rows, "k_sweep": swept}}


def test_the_front_leaves_out_what_is_dearer_and_worse_and_the_oracle() -> None:
    table = {"a": (0.2, 1.0), "b": (0.5, 2.0), "worse": (0.4, 3.0), "c": (0.6, 4.0), "pass@4": (0.9, 1.5)}
    found = cost.pareto(results_of(table))
    assert found["front"] == ["a", "b", "c"]
    svg = plots.pareto(found)
    assert all(f">{name}<" in svg for name in ("a", "b", "worse", "c"))
    assert "pass@4" not in svg
    assert "mathdefault" not in svg  # the scale's numbers are text, as formulas are not drawn
    assert ">1e0<" in svg
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
    fewer = results_of(table, {2: (0.52, 40.0), 8: (0.62, 120.0)})
    fewer["diagnostics"]["k_sweep"][0]["n"] = 60  # the easy ones alone may have so many rollouts
    _, sft, left_out = cost.monolith_sentences(fewer)
    assert sft.endswith("at 80 % of its FLOPs: synthesizer/sft, 60.0 %.")
    assert left_out == "Left out there, as not all problems have as many references: synthesizer/sft k=2."
    assert [p["name"] for p in cost.pareto(fewer)["points"] if "k=" in p["name"]] == ["synthesizer/sft k=8"]
    del table["monolith"]
    assert cost.monolith_sentences(results_of(table)) == []
