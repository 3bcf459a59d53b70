"""Rows beyond the base ones: what each asks of its model, what it counts as the answer, and what it costs."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from conftest import Script, bundle_row, files_of, write_rows

from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate import answers as generate
from a2r_train.evaluate.comparison import load
from a2r_train.evaluate.kept import rescore
from a2r_train.evaluate.report.write import results_text
from a2r_train.evaluate.rows import reward_model
from a2r_train.evaluate.rows.panel import named_reference, unnamed
from a2r_train.evaluate.templates import CONSISTENCY, REFINE, SELECT
from a2r_train.records import Bundle, Problem, Synthesis


@pytest.fixture(scope="session")
def classifier(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random reward model."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(4)
    config = AutoConfig.from_pretrained(tiny, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return str(folder)


def rows_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in results["rows"]}


def head(template: str) -> str:
    return template.partition("{problem}")[0]


def test_every_row_at_once_and_from_the_cache(
    config: EvaluateConfig, classifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches: dict[str, Any] = {
        "monolith": config.explorer, "explorer_grpo": config.base, "reward_model": classifier,
        "self_refine": 2,
        "universal_self_consistency": True, "genselect": True, "budgets": "2,4", "rounds": 2,
        "rounds_population": 5,
        "rounds_subset": 2, "adaptive_validation": config.bundles,
    }  # fmt: skip
    config = replace(config, **switches)
    results = evaluate(config)
    assert set(rows_of(results)) >= {
        *(
            "best-of-4",
            "explorer/grpo",
            "explorer/grpo@T",
            "monolith",
            "monolith@T",
            "universal-self-consistency",
            "genselect",
        ),
        *(
            "self-refine",
            "rounds",
            "adaptive",
            "pass@1/2x",
            "pass@1/4x",
            "synthesizer/base/2x",
            "synthesizer/base/4x",
        ),
    }
    assert all(row["n"] == 7 and row["tokens"] > 0 for row in results["rows"])
    assert rows_of(results)["synthesizer/base/4x"]["tokens"] >= rows_of(results)["synthesizer/base"]["tokens"]
    before = files_of(Path(config.output_dir) / "syntheses")
    monkeypatch.setattr(generate, "load_engine", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr(reward_model, "scores", lambda *_, **__: pytest.fail("scored again"))
    assert evaluate(config) == results
    assert files_of(Path(config.output_dir) / "syntheses") == before


@pytest.mark.parametrize(
    ("switch", "row", "template"),
    [
        ("universal_self_consistency", "universal-self-consistency", CONSISTENCY),
        ("genselect", "genselect", SELECT),
    ],
)
def test_a_chosen_number_is_that_reference(
    config: EvaluateConfig, script: Script, switch: str, row: str, template: str
) -> None:
    made = read(Bundle, config.bundles)
    engine = script(lambda asked: "I take \\boxed{7}" if made[0].problem in asked else "\\boxed{2}")
    found = rows_of(evaluate(replace(config, **{switch: True}, temperature=0.0)))[row]
    expected = [0.0] + [float(b.references[1].verdict == "correct") for b in made[1:]]
    assert 0 < found["accuracy"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert found["note"] == "1 of 7 named no reference"
    assert found["unparsable"] == pytest.approx(1 / 7)
    assert found["tokens"] == pytest.approx(4 * np.mean([r.tokens for b in made for r in b.references]) + 107)
    assert sum(asked.startswith(head(template)) for asked in engine.asked) == 7


def test_a_named_reference_without_an_answer_is_named(config: EvaluateConfig) -> None:
    bundle = read(Bundle, config.bundles)[0]
    broken = replace(bundle.references[1], answer="", verdict="unparsable")
    bundle = replace(bundle, references=[bundle.references[0], broken, *bundle.references[2:]])
    texts = ("The answer is 2", "\\boxed{0}", "\\boxed{5}", "none", "\\boxed{²}", "\\boxed{②}")
    made = [Synthesis(bundle.id, 0, text, "", "unparsable", 1, 1, "stop", "m", 0) for text in texts]
    assert [named_reference(bundle, one.text) for one in made] == [2, 0, 0, 0, 0, 0]
    assert unnamed([bundle], made) == 5


NAMED = (
    r"\boxed{Reference 2}",
    r"\boxed{\text{Reference }2}",
    r"\boxed{(2)}",
    r"\boxed{\#2}",
    r"\boxed{\textbf{2}}",
    r"\boxed{Solution number 2.}",
)
NOT_NAMED = (
    r"\boxed{Reference 1 and 2}",
    r"\boxed{2, 1}",
    r"\boxed{\frac{2}{1}}",
    r"\boxed{-2}",
    r"\boxed{x = 2}",
)


@pytest.mark.parametrize(("text", "number"), [*((t, 2) for t in NAMED), *((t, 0) for t in NOT_NAMED)])
def test_a_number_may_have_its_word_or_brackets(text: str, number: int, config: EvaluateConfig) -> None:
    """A rival's format is read as kindly as an answer is."""
    assert named_reference(read(Bundle, config.bundles)[0], text) == number


def test_self_refine_reads_its_own_draft(config: EvaluateConfig, script: Script) -> None:
    def answer(asked: str) -> str:
        if not asked.startswith(head(REFINE)):
            return "a first draft: \\boxed{3}"
        return "second: \\boxed{6}" if "a first draft" in asked else "third: \\boxed{9}"

    engine = script(answer)
    config = replace(config, temperature=0.0)
    for turns, draft, right in ((1, "a first draft", "6"), (2, "second", "9")):
        engine.asked.clear()
        found = rows_of(evaluate(replace(config, self_refine=turns)))["self-refine"]
        assert found["accuracy"] == pytest.approx(1 / 7, abs=1e-6), right  # one gold is 6, one is 9
        assert found["tokens"] == 7 + turns * 107
        assert sum(draft in asked for asked in engine.asked) == 7


def test_rounds_read_subsets_and_vote(config: EvaluateConfig, script: Script) -> None:
    golds = {b.problem: b.answer for b in read(Bundle, config.bundles)}

    def answer(asked: str) -> str:
        return next(f"\\boxed{{{gold}}}" for problem, gold in golds.items() if problem in asked)

    engine = script(answer)
    settings: dict[str, Any] = {"rounds": 3, "rounds_population": 6, "rounds_subset": 2}
    found = rows_of(evaluate(replace(config, **settings)))["rounds"]
    assert found["accuracy"] == 1.0
    completions = sum(10 + sample for sample in range(6))
    assert found["tokens"] == pytest.approx(completions + 3 * 6 * 107)
    asked = [text for text in engine.asked if "Reference 2:" in text and "Reference 3:" not in text]
    assert len(asked) == 7 * 6 * 3
    other = {"rounds_population": 7, "output_dir": f"{config.output_dir}2"}
    with pytest.raises(InputError, match="fewer rollouts than rounds_population 7"):
        evaluate(replace(config, **settings | other))
    assert not Path(other["output_dir"]).exists()


def test_adaptive_by_hand(
    config: EvaluateConfig, tmp_path: Path, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten problems that agree at once and one synthesis that is always right: the others need all four
    references.
    """

    def one(at: int, answers: list[str], gold: str) -> dict[str, Any]:
        problem = Problem(f"p{at}", f"What is {gold}?", gold, "exact")
        return bundle_row(problem, answers, texts=[f"so {a}" for a in answers], tokens=[50] * 4)

    rows = [one(i, ["5"] * 4, "5") for i in range(6)] + [
        one(i, ["5", "2", "5", "2"], "5") for i in range(6, 10)
    ]
    path = write_rows(tmp_path / "made.jsonl", rows)
    script(lambda _: "\\boxed{5}")
    config = replace(config, bundles=path, rollouts="", adaptive_validation=path, temperature=0.0)
    results = evaluate(config)
    says = "test problems choose the price of the row adaptive, 1 of 1"  # all have one text
    assert f"adaptive_validation: {says}" in caplog.text
    found, details = rows_of(results)["adaptive"], results["diagnostics"]["adaptive"]
    assert found["accuracy"] == 1.0
    assert details["price"] == 0.5  # the syntheses are always right: any stop is as good
    assert found["tokens"] == pytest.approx((6 * 100 + 4 * (100 + 107)) / 10)
    full = 200 + 107
    assert details["saved"] == pytest.approx(1 - found["tokens"] / full, abs=1e-5)
    assert details["low"] < details["saved"] < details["high"] < 1
    assert details["change"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
    script(lambda asked: "\\boxed{5}" if "Reference 4" in asked else "\\boxed{1}")
    results = evaluate(replace(config, seed=1, output_dir=str(tmp_path / "strict")))
    details = results["diagnostics"]["adaptive"]
    assert details["price"] == 0.125  # two that agree are enough, a tie is not
    assert (details["references"], details["skipped"]) == (2 * 0.6 + 4 * 0.4, 0.6)
    assert rows_of(results)["adaptive"]["accuracy"] == 1.0
    assert details["saved"] == pytest.approx(1 - (6 * 100 + 4 * full) / (10 * full), abs=1e-5)


def test_adaptive_walks_each_bundle_to_its_own_size(
    config: EvaluateConfig, tmp_path: Path, script: Script
) -> None:
    """Half of the bundles have two references, half four, of which the synthesizer needs all."""

    def one(at: int, answers: list[str], gold: str) -> dict[str, Any]:
        problem = Problem(f"p{at}", f"What is {gold}?", gold, "exact")
        texts = [f"so {a}" for a in answers]
        return bundle_row(problem, answers, texts=texts, tokens=[50] * len(answers))

    given = [one(i, ["6", "6"], "6") for i in range(3)]
    given += [one(i, ["5", "2", "5", "2"], "5") for i in range(3, 6)]
    path = write_rows(tmp_path / "made.jsonl", given)
    script(lambda asked: f"\\boxed{{{6 if 'is 6?' in asked else 5 if 'Reference 4' in asked else 1}}}")
    results = evaluate(replace(config, bundles=path, rollouts="", adaptive_validation=path, temperature=0.0))
    details = results["diagnostics"]["adaptive"]
    assert details["validation_full"]["accuracy"] == 1.0
    assert details["validation_full"]["tokens"] == pytest.approx(150 + 107)
    assert (details["price"], details["references"]) == (0.0, 3.0)
    assert rows_of(results)["adaptive"]["accuracy"] == 1.0
    assert details["saved"] == pytest.approx(1 - (100 + 200 + 107) / (100 + 200 + 2 * 107), abs=1e-5)


def test_the_row_of_grpo_alone_does_not_claim_sft(config: EvaluateConfig, tmp_path: Path) -> None:
    trained = str(copytree(config.base, tmp_path / "trained"))
    config = replace(
        config, grpo=trained, monolith=config.explorer, budgets="2", diagnostics="order", cards=True
    )
    results = evaluate(config)
    names = rows_of(results)
    assert {"synthesizer/grpo", "synthesizer/grpo@T", "synthesizer/grpo/2x"} <= set(
        names
    )  # the final one has more budgets
    assert not [name for name in names if "sft" in name]
    assert {("synthesizer/grpo", "synthesizer/base"), ("synthesizer/grpo@T", "synthesizer/base@T")} <= {
        (pair["a"], pair["b"]) for pair in results["paired"]
    }
    said = (Path(config.output_dir) / "report.md").read_text()
    assert "SFT" not in said
    assert "The pair with synthesizer/grpo " in said
    assert "accuracy of synthesizer/grpo in %" in (Path(trained) / "README.md").read_text()
    names = rows_of(evaluate(replace(config, sft=trained)))
    assert {"synthesizer/sft", "synthesizer/sft+grpo"} <= set(names)
    assert "synthesizer/grpo" not in names


def test_adaptive_wants_enough_references(config: EvaluateConfig) -> None:
    with pytest.raises(InputError, match="adaptive_first 5: a bundle has only 4 references"):
        evaluate(replace(config, adaptive_validation=config.bundles, adaptive_first=5))
    assert not Path(config.output_dir).exists()


def test_adaptive_wants_counted_references(config: EvaluateConfig, tmp_path: Path) -> None:
    """Uncounted ones would make every price free, so that the first would be chosen."""
    uncounted = [
        asdict(replace(b, references=[replace(r, tokens=0) for r in b.references]))
        for b in read(Bundle, config.bundles)
    ]
    path = write_rows(tmp_path / "uncounted.jsonl", uncounted)
    with pytest.raises(InputError, match=r"uncounted.jsonl: references without token counts"):
        evaluate(replace(config, adaptive_validation=path))
    assert not Path(config.output_dir).exists()


def test_best_of_k_takes_the_reference_of_the_highest_score(config: EvaluateConfig, classifier: str) -> None:
    made = read(Bundle, config.bundles)
    config = replace(config, base="", explorer="", reward_model=classifier)
    found = rows_of(evaluate(config))["best-of-4"]
    scored = reward_model.scores(classifier, made, batch_size=3)
    best = [max(range(4), key=lambda i, s=s: s[i][0]) for s in scored]  # type: ignore[misc]
    assert len(set(best)) > 1
    right = [float(b.references[i].verdict == "correct") for b, i in zip(made, best, strict=True)]
    assert found["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    read_tokens = np.mean([sum(tokens for _, tokens in s) for s in scored])
    assert found["tokens"] == pytest.approx(
        4 * np.mean([r.tokens for b in made for r in b.references]) + read_tokens
    )


def test_what_is_no_reward_model_is_refused(config: EvaluateConfig, tiny: str) -> None:
    with pytest.raises(InputError, match="expected a sequence classifier with one score"):
        evaluate(replace(config, reward_model=tiny))
    with pytest.raises(InputError, match=r"^runs/tiny/rm: no such folder or file"):
        evaluate(replace(config, reward_model="runs/tiny/rm"))
    assert not Path(config.output_dir).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": "2,x"}, "budgets '2,x': expected whole numbers"),
        ({"diagnostics": "ordre"}, "diagnostics: unknown name 'ordre'; expected order"),
        ({"diagnostics": "k", "rollouts": ""}, "diagnostics: k needs `rollouts:`"),
        ({"genselect": True, "base": ""}, "genselect: needs a synthesizer"),
        ({"rounds": 1, "rounds_subset": 9}, "rounds_population is 8; expected at least 9"),
        ({"rounds": 1, "temperature": 0.0}, "rounds: its syntheses are sampled"),
        ({"prices": "nowhere.yaml"}, "prices nowhere.yaml: no such file"),
    ],
)
def test_a_switch_that_makes_no_sense_is_refused(
    config: EvaluateConfig, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(replace(config, **change))
    assert not Path(config.output_dir).exists()


def test_gain_ratios_are_relative_to_the_majority(config: EvaluateConfig, script: Script) -> None:
    """Of p5 and p6 4 and 5 of 6 rollouts are right: pass@1 is 3/4, the majority right in both, the
    synthesizer in p6.
    """
    made = read(Bundle, config.bundles)[4:6]
    write_rows(Path(config.bundles), [asdict(b) for b in made])
    script(lambda asked: f"\\boxed{{{made[1].answer}}}" if made[1].problem in asked else "I do not know")
    results = evaluate(replace(config, temperature=0.0))
    gain = results["diagnostics"]["gain"]
    assert gain["maj@4"]["ratio"] == 1.0
    assert gain["synthesizer/base"]["ratio"] == pytest.approx((1 / 2 - 3 / 4) / (1 - 3 / 4))
    assert set(gain) >= {"pass@4", "synthesizer/base", "maj@equal_tokens"}


def without_later_rows(kept: dict[str, Any]) -> str:
    later = ("synthesizer/no_references+vote", "synthesizer/no_references+vote@T")
    if isinstance(kept["rows"], dict):
        return json.dumps(kept | {"rows": {k: v for k, v in kept["rows"].items() if k not in later}})
    parts = {
        part: {k: v for k, v in one.items() if k not in later} if isinstance(one, dict) else one
        for part, one in kept["diagnostics"].items()
    }
    rows = [row for row in kept["rows"] if row["name"] not in later]
    return results_text(kept | {"rows": rows, "diagnostics": parts})


def test_unanimous_bundles_are_answered_by_their_vote(
    config: EvaluateConfig, tmp_path: Path, script: Script
) -> None:
    """Of four problems two are unanimous, one of them wrongly; the synthesizer is right everywhere."""
    answers = (["1"] * 4, ["2"] * 4, ["1", "1", "1", "2"], ["1", "1", "1", ""])
    rows = [
        bundle_row(Problem(f"p{i}", f"Number {i}?", "1"), some, f"b{i}", tokens=[10] * 4)
        for i, some in enumerate(answers)
    ]
    path = write_rows(tmp_path / "some.jsonl", rows)
    asked = list[str]()

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return r"\boxed{1}"

    script(answer)
    config = replace(config, bundles=path, rollouts="", samples=2, skip_agreement=1.0)
    config = replace(config, no_references=config.base)
    results = evaluate(config)
    assert not any(f"Number {i}?" in prompt and "Reference 1" in prompt for prompt in asked for i in (0, 1))
    for name in ("synthesizer/base", "synthesizer/base@T"):
        row = rows_of(results)[name]
        assert (row["accuracy"], row["note"]) == (0.75, "50 % agree, answered by their vote")
        assert row["tokens"] == 40 + 107 / 2
    assert rows_of(results)["synthesizer/alone"]["accuracy"] == 1.0
    assert rows_of(results)["synthesizer/alone"]["note"] == ""
    for end in ("", "@T"):  # the control has the same answers, so it is wrong where the vote is
        alone, voted = (rows_of(results)[f"synthesizer/no_references{name}{end}"] for name in ("", "+vote"))
        assert (alone["accuracy"], voted["accuracy"]) == (1.0, 0.75)
        assert voted["note"] == "50 % agree, answered by their vote"
        assert voted["tokens"] == 40 + 107 / 2
    stages = results["diagnostics"]["tokens_by_stage"]["synthesizer/base"]
    assert stages["references"] == 40
    folder = Path(config.output_dir)
    assert rescore(folder).said == []
    for name in ("results.json", "scores.json"):  # as an earlier version wrote them
        (folder / name).write_text(without_later_rows(json.loads((folder / name).read_text())))
    assert rescore(folder).said == []
    load(folder, "it")  # what `a2r compare` reads
    with pytest.raises(InputError, match=r"belongs to another run \(skip_agreement"):
        evaluate(replace(config, skip_agreement=0.0))


def test_without_contested_bundles_no_synthesizer_is_asked(
    config: EvaluateConfig, tmp_path: Path, script: Script
) -> None:
    rows = [bundle_row(Problem(f"p{i}", f"Number {i}?", "1"), ["1", "1"], f"b{i}") for i in range(3)]
    path = write_rows(tmp_path / "agreed.jsonl", rows)
    script(lambda prompt: pytest.fail(prompt) if "Reference 1" in prompt else r"\boxed{2}")
    results = evaluate(replace(config, bundles=path, rollouts="", temperature=0.0, skip_agreement=1.0))
    assert rows_of(results)["synthesizer/base"]["accuracy"] == 1.0
    assert rescore(Path(config.output_dir)).said == []


def test_what_skip_agreement_refuses(config: EvaluateConfig) -> None:
    with pytest.raises(InputError, match="skip_agreement: needs a synthesizer"):
        evaluate(replace(config, base="", skip_agreement=1.0))
    with pytest.raises(InputError, match="skip_agreement: diagnostics ask about every bundle"):
        evaluate(replace(config, diagnostics="order", skip_agreement=1.0))
