"""What an answer costs: operations by hand, the front of cost and accuracy, and the sentence."""

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import bundle_with

from a2r_train.evaluate import cost
from a2r_train.evaluate.answers import Task
from a2r_train.evaluate.report import plots
from a2r_train.evaluate.rows import reward_model
from a2r_train.evaluate.rows.panel import task_row
from a2r_train.evaluate.rows.row import EXPLORER, Part, Row, bundle_votes, reference_rows
from a2r_train.inference.price import Price
from a2r_train.models import Size
from a2r_train.records import VOTED, Bundle, Problem, Reference, Rollout, Synthesis


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


@pytest.mark.parametrize("width", [plots.WIDE, plots.NARROW])
@pytest.mark.parametrize("count", [2, 4, 9])
def test_rows_that_are_all_the_same_leave_room_for_the_plot(count: int, width: float) -> None:
    """As where the vote answers every bundle: matplotlib only warns, and draws no axes."""
    same = {f"synthesizer/sft+grpo/{at}x": (0.5, 2.0) for at in range(count)}
    found = cost.pareto(results_of({"pass@1": (0.2, 1.0), **same}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = plots.pareto(found, width)
    assert (">synthesizer/sft+grpo/0x, synthesizer/sft+grpo/1x<" in svg) == (count == 2)


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


def written_by(identity: str, *references: tuple[str, int]) -> Bundle:
    """A bundle with references of these models and lengths."""
    made = bundle_with(Problem(identity.split("/")[0], "1 + 1?", "2"), ["2"], identity)
    texts = [Reference(r"\boxed{2}", "2", "correct", tokens, model) for model, tokens in references]
    return replace(made, references=texts, n_correct=len(texts))


def test_an_answer_costs_what_each_of_its_explorers_costs() -> None:
    """Two of three references are of a model of 10 parameters, one is of a model of 1000, with a longer text
    and a longer prompt. Whichever of them the recipe names, both are paid.
    """
    bundle = written_by("p/0", ("small", 10), ("small", 20), ("large", 60))
    rollouts = [
        Rollout("p", at, "", "", "correct", prompt, 10, "stop", model)
        for at, (model, prompt) in enumerate([("small", 4), ("small", 6), ("large", 8)])
    ]
    rows = reference_rows([bundle], bundle_votes([bundle]), rollouts)
    sizes = {"small": Size(10, 1, 1), "large": Size(1000, 1, 1)}
    prices = {"small": Price(1, 2), "large": Price(100, 200)}
    for named in ("small", "large", "", "elsewhere/small"):
        found = cost.costs(rows, cost.writers_of(named, [bundle], rollouts), prices, sizes.get)
        parts = (Part("small", 5, 15, completions=2), Part("large", 8, 60))
        flops = sum(cost.flops(sizes[part.model], part) for part in parts)
        assert found["maj@3"]["flops"] == pytest.approx(flops)
        dollars = (5 * 1 + 30 * 2 + 8 * 100 + 60 * 200) / 1e3
        assert found["maj@3"]["dollars"] == pytest.approx(dollars)
        # one of them is drawn, and only that one reads its prompt
        one = (2 * (5 * 1 + 15 * 2) + 8 * 100 + 60 * 200) / 3 / 1e3
        assert found["pass@1"]["dollars"] == pytest.approx(one)
    del prices["large"]
    found = cost.costs(rows, cost.writers_of("small", [bundle], rollouts), prices, sizes.get)
    assert found["maj@3"]["dollars"] is None


def test_a_single_explorer_may_have_another_name_now() -> None:
    bundle = written_by("p/0", ("there", 10), ("there", 30))
    (one,) = cost.writers_of("here", [bundle], [])
    assert one == cost.Writer("here", 1.0, 1.0, 0.0)
    row = Row("maj@2", bundle_votes([bundle]), 40, parts=(Part(EXPLORER, 0.0, 20.0, 2.0),))
    found = cost.costs([row], [one], {"here": Price(1, 1)}, lambda _: None)
    assert found == {"maj@2": {"flops": None, "dollars": 40 / 1e3}}


@pytest.mark.parametrize("view", ["alone", "references"])
def test_tokens_are_means_over_problems_however_many_bundles_each_has(view: str) -> None:
    """As accuracies are; a problem with many rollouts has more bundles."""
    bundles = [written_by(name, ("m", 10)) for name in ("p/0", "q/0", "q/1", "q/2")]
    lengths = {"p/0": 10, "q/0": 100, "q/1": 200, "q/2": 300}
    made = [
        Synthesis(name, at, "", "2", "correct", 5 * tokens, tokens + at, "stop", "m", 0)
        for name, tokens in lengths.items()
        for at in (0, 2)
    ]
    row = task_row(Task("synthesizer/grpo", "m", view), bundles, made)
    completion, prompt = (11 + 201) / 2, (50 + 1000) / 2
    assert row.parts[-1] == Part("m", prompt, completion, task="synthesizer/grpo")
    assert row.tokens == (completion if view == "alone" else 10 + prompt + completion)


def test_a_bundle_that_its_vote_answers_costs_no_time_and_no_flops() -> None:
    """Of five problems four are answered by their vote; the fifth costs what it costs by itself."""
    bundles = [written_by(f"{problem}/0", ("m", 10)) for problem in "pqrst"]
    made = [Synthesis(b.id, 0, "", "2", "correct", 0, 0, VOTED, "s", 0) for b in bundles]
    made[2] = Synthesis("r/0", 0, "", "2", "correct", 100, 20, "stop", "s", 0)
    task = Task("synthesizer/grpo", "s")
    size = Size(1000, 2, 8)
    work: Any = SimpleNamespace(
        config=SimpleNamespace(rollouts=""),
        seconds={task.name: {"seconds": 3.0, "answers": 1, "device": "", "batch_size": 1}},
    )

    def told(row: Row) -> tuple[float, float]:
        own = replace(row, parts=row.parts[1:])
        found = cost.costs([own], [], {"s": Price(1, 10)}, lambda _: size)[row.name]
        assert found["dollars"] == pytest.approx(row.parts[1].completions * (100 + 200) / 1e3)
        return found["flops"] or 0.0, cost.timings([own], work)["seconds"][row.name]

    alone = told(task_row(task, [bundles[2]], [made[2]]))
    assert alone == (cost.flops(size, Part("s", 100, 20)), 3.0)
    assert told(task_row(task, bundles, made)) == pytest.approx([one / 5 for one in alone])
    work.seconds = {}  # no bundle was contested, so nothing was timed
    none = task_row(task, bundles[:2], made[:2])
    assert told(none) == (0.0, 0.0)


def test_a_reward_model_reads_each_reference_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bundles of two references and of one: they cost what the three chats cost by themselves."""
    bundles = [written_by("p/0", ("m", 10), ("m", 20)), written_by("q/0", ("m", 30))]
    read = [[(0.5, 100), (0.1, 100)], [(0.2, 100)]]
    monkeypatch.setattr(reward_model, "model_hash", lambda _: "")
    monkeypatch.setattr(reward_model, "scores", lambda *_: read)
    row = reward_model.best_of_row("rm", bundles, tmp_path, 1)
    assert row.tokens == 30 + 150
    size = Size(1000, 2, 8)
    one = cost.flops(size, Part("rm", 100, 0))
    assert sum(cost.flops(size, part) for part in row.parts[1:]) == pytest.approx(1.5 * one)
    prices = {"rm": Price(1, 0), "m": Price(0, 0)}
    found = cost.costs([row], cost.writers_of("m", bundles, []), prices, lambda _: size)
    assert found[row.name]["dollars"] == pytest.approx(150 / 1e3)
