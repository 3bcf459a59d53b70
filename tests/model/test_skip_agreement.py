"""`skip_agreement` in all that is made from the answers: a vote's answer is none of the synthesizer's."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from conftest import Script, bundle_row, write_rows

from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate.comparison import compare
from a2r_train.evaluate.kept import regenerate, rescore
from a2r_train.evaluate.pooled import pool
from a2r_train.evaluate.probe import beside
from a2r_train.evaluate.report.browser import OF_THE_VOTE
from a2r_train.records import Problem

AGREED, CONTESTED = ["1"] * 4, ["1", "1", "1", "2"]


def bundles_of(path: Path, answers: Sequence[Sequence[str]]) -> str:
    rows = [
        bundle_row(Problem(f"p{i}", f"Number {i}?", "1"), list(some), f"b{i}", tokens=[10] * 4)
        for i, some in enumerate(answers)
    ]
    return write_rows(path, rows)


@pytest.fixture
def skipping(config: EvaluateConfig, tmp_path: Path) -> EvaluateConfig:
    """Three unanimous bundles of four."""
    path = bundles_of(tmp_path / "some.jsonl", [AGREED, AGREED, ["2"] * 4, CONTESTED])
    return replace(config, bundles=path, rollouts="", temperature=0.0, skip_agreement=1.0)


def test_a_model_that_cannot_be_read_is_not_hidden_by_the_votes(
    skipping: EvaluateConfig, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(lambda prompt: "I cannot say." if "Reference 1" in prompt else r"\boxed{1}")
    monkeypatch.setattr(beside, "FEWEST", 1)
    asked = list[Any]()
    monkeypatch.setattr(beside, "fit", lambda *given: asked.append(given) or beside.Selector())
    results = evaluate(skipping)
    row = next(one for one in results["rows"] if one["name"] == "synthesizer/base")
    assert (row["accuracy"], row["unparsable"]) == (0.5, 1.0)
    diagnostics = results["diagnostics"]
    assert diagnostics["unparsable"]["synthesizer/base"]["share"] == 1.0
    assert diagnostics["copy_rate"]["synthesizer/base"] == 0.0
    _, right, _ = asked[0]  # nothing is fitted to what the model was not asked
    assert [one for one in right if one == one] == [0.0]


def test_a_system_is_never_taken_for_its_model(
    skipping: EvaluateConfig, script: Script, tmp_path: Path
) -> None:
    script(lambda _: r"\boxed{1}")
    trained = str(copytree(skipping.base, tmp_path / "trained"))
    system = replace(skipping, grpo=trained, cards=True, output_dir=str(tmp_path / "system"))
    model = replace(system, skip_agreement=0.0, output_dir=str(tmp_path / "model"))
    name = f"{tmp_path}/trained/README.md"
    for config, accuracy, said in ((model, 100.0, "grpo"), (system, 75.0, "grpo with skip_agreement 1")):
        results = evaluate(config)
        card = Path(name).read_text()
        assert f"value: {accuracy}\n      name: accuracy of synthesizer/{said} in %" in card
        assert f"synthesizer/{said} is right in {accuracy} % of 4 problems" in card
        assert ("(skip_agreement 1), their vote answers" in results["setup"]["protocol"]) is (
            config.skip_agreement > 0
        )
        page = (Path(config.output_dir) / "report.html").read_text()
        assert page.count(OF_THE_VOTE) == 6 * (config.skip_agreement > 0)  # three bundles, base and trained
    (note,) = [line for line in compare([model.output_dir, system.output_dir]) if "skip_agreement" in line]
    assert note == f"Only in {system.output_dir} (1) the vote answers agreeing references (skip_agreement)."
    with pytest.raises(
        InputError, match=r"grpo: skip_agreement is 0 in .*model, 1 in .*system; evaluate all"
    ):
        pool([model.output_dir, system.output_dir])
    assert pool([model.output_dir, system.output_dir], "maj@4", ["explorer/greedy"])
    assert pool([system.output_dir])[0].startswith("synthesizer/grpo is right in 75.0 %")


def test_three_of_four_references_are_enough_from_075_on(
    skipping: EvaluateConfig, script: Script, tmp_path: Path
) -> None:
    """The vote answers 3-1; of 2-1 with an unreadable fourth, the model is asked. The leader answers."""
    script(lambda _: r"\boxed{5}")
    answers = [AGREED, ["2", "1", "1", "1"], ["1", "1", "2", ""], ["1", "", "1", "1"], ["1", "1", "2", "2"]]
    config = replace(skipping, bundles=bundles_of(tmp_path / "five.jsonl", answers), skip_agreement=0.75)
    results = evaluate(config)
    row = next(one for one in results["rows"] if one["name"] == "synthesizer/base")
    assert (row["accuracy"], row["note"]) == (0.6, "60 % agree, answered by their vote")
    at_half = replace(config, skip_agreement=0.5, output_dir=str(tmp_path / "half"))
    with pytest.raises(InputError, match=r"skip_agreement is 0\.5; expected .* above 0\.5 and at most 1"):
        evaluate(at_half)


def test_bundles_judged_by_another_verifier_since_are_regenerated(
    skipping: EvaluateConfig, script: Script, tmp_path: Path
) -> None:
    """Their stored answers disagree, and the same texts read today all agree."""
    script(lambda _: r"\boxed{1}")
    path = Path(skipping.bundles)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["references"][0] |= {"answer": "7", "verdict": "incorrect"}
    rows[0]["n_correct"] = 3
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(skipping)
    found = regenerate(Path(skipping.output_dir), str(tmp_path / "again"), {})
    assert {one.same for one in found if one.name.startswith("synthesizer/base")} == {"4 of 4"}


def test_answers_that_a_verifier_asks_for_since_are_missed(skipping: EvaluateConfig, script: Script) -> None:
    """Texts that agreed disagree now, and the other way round."""
    script(lambda _: r"\boxed{1}")
    evaluate(skipping)
    path, folder = Path(skipping.bundles), Path(skipping.output_dir)
    before = path.read_text()
    path.write_text(before.replace(r"\boxed{2}", r"\boxed{1}"))
    found = rescore(folder)
    assert any("bundle b3" in line for line in found.said)
    first, *others = before.splitlines(keepends=True)
    path.write_text(first.replace(r"\boxed{1}", r"\boxed{2}", 1) + "".join(others))
    with pytest.raises(
        InputError, match=r"no answer of synthesizer/base to bundle b0, sample 0.*do not agree now"
    ):
        rescore(folder)
