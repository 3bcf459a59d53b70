"""Changed bundles: what is changed, and that a synthesizer of known habits is found out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from conftest import Script, bundle_row, write_rows

from a2r_train.data.builder import with_references
from a2r_train.data.read import read
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate.answers import Generator, Task
from a2r_train.evaluate.report.tables import sections
from a2r_train.evaluate.rows.perturbed import _halved, _permuted, _with_certain, _wrong
from a2r_train.models import load_tokenizer
from a2r_train.prompts import Prompter
from a2r_train.records import Bundle, Problem, Rollout


def probed(config: EvaluateConfig, answer: Callable[[str], str], script: Script) -> dict[str, Any]:
    script(answer)
    results = evaluate(replace(config, diagnostics="all", temperature=0.0, k_sweep="1,2,4,6,8"))
    shown = {section.title for section in sections(results)}
    assert {
        "Changed bundles",
        "Accuracy by number of references",
        "Accuracy by votes for the most frequent answer",
    } <= shown
    return dict(results["diagnostics"])


def test_one_reference_has_no_other_order(config: EvaluateConfig, tmp_path: Path, script: Script) -> None:
    rows = [bundle_row(Problem(f"p{i}", f"Number {i}?", "1"), ["1"], f"b{i}") for i in range(3)]
    path = write_rows(tmp_path / "single.jsonl", rows)
    script(lambda _: r"\boxed{1}")
    results = evaluate(
        replace(config, bundles=path, rollouts="", temperature=0.0, diagnostics="order,truncated")
    )
    assert list(results["diagnostics"]["probes"]) == ["references cut to their first half"]


def boxes(asked: str) -> list[str]:
    return [part.partition("}")[0] for part in asked.split("\\boxed{")[1:] if part[0] != "}"]


def test_a_synthesizer_that_copies_the_last_reference_is_found_out(
    config: EvaluateConfig,
    script: Script,
) -> None:
    found = probed(config, lambda asked: f"\\boxed{{{(boxes(asked) or ['none'])[-1]}}}", script)
    probes = found["probes"]
    assert probes["other order"]["agreement"] < 1
    assert probes["references: solution"]["agreement"] == 1.0
    assert probes["references: solution"]["change"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert probes["references cut to their first half"]["accuracy"] == 0.0  # nothing is left to copy
    injected = probes["one wrong reference that claims to be certain"]
    assert (injected["followed"], injected["accuracy"], injected["n"]) == (
        1.0,
        0.0,
        6,
    )  # one problem has no wrong rollout
    assert injected["followed_before"] < 1
    assert [one["k"] for one in found["k_sweep"]] == [1, 2, 4, 6]  # there are six rollouts
    assert found["k_sweep"][-1]["oracle"] == pytest.approx(6 / 7, abs=1e-6)
    assert found["k_sweep"][0]["accuracy"] == found["k_sweep"][0]["majority"]


def test_a_synthesizer_that_ignores_the_references_is_not_moved(
    config: EvaluateConfig,
    script: Script,
) -> None:
    golds = {b.problem: b.answer for b in read(Bundle, config.bundles)}
    found = probed(
        config, lambda asked: next(f"\\boxed{{{g}}}" for p, g in golds.items() if p in asked), script
    )
    for one in found["probes"].values():
        assert (one["accuracy"], one["agreement"]) == (1.0, 1.0)
    assert found["probes"]["one wrong reference that claims to be certain"]["followed"] == 0.0


def test_how_bundles_are_changed(config: EvaluateConfig) -> None:
    grouped: dict[str, list[Rollout]] = {}
    for rollout in read(Rollout, config.rollouts):
        grouped.setdefault(rollout.problem_id, []).append(rollout)
    without = []
    for bundle in read(Bundle, config.bundles):
        members = bundle.references
        other = _permuted(bundle, 0).references
        assert Counter(other) == Counter(members)
        assert other != members
        assert all(
            len(m.text) == len(old.text) // 2
            for m, old in zip(_halved(bundle).references, members, strict=True)
        )
        wrong = _wrong(bundle, grouped[bundle.problem_id])
        if wrong is None:
            without.append(bundle.problem_id)
            continue
        changed = _with_certain(bundle, wrong).references
        assert len(changed) == len(members)
        assert changed[-1].answer == wrong.answer != bundle.answer
        assert "certainly right" in changed[-1].text
        assert sum(m in members for m in changed[:-1]) == len(members) - 1
    assert without == ["p7"]  # of which every rollout is correct


@pytest.mark.parametrize(("engine", "more"), [("transformers", True), ("vllm", True), ("openai", False)])
def test_more_references_have_more_room_where_the_context_is_known(
    config: EvaluateConfig, tmp_path: Path, engine: str, more: bool
) -> None:
    (tmp_path / "prompt.yaml").write_text("max_prompt_tokens: 700\n")
    work = Generator(replace(config, engine=engine, prompt=str(tmp_path / "prompt.yaml")), tmp_path / "out")
    long = [
        with_references(b, [replace(m, text=m.text * 50) for m in b.references])
        for b in read(Bundle, config.bundles)
    ]
    prompter = Prompter(load_tokenizer(config.base))
    for prompt_factor, limit in ((Fraction(1), 700), (Fraction(2), 1400 if more else 700)):
        lengths = [
            len(prompter.token_ids(c))
            for c in work.chats(Task("x", config.base, prompt_factor=prompt_factor), long).values()
        ]
        assert limit - 30 < max(lengths) <= limit


def test_the_probes_of_real_models_are_kept(config: EvaluateConfig) -> None:
    config = replace(config, diagnostics="order,text", temperature=0.0)
    results = evaluate(config)
    probe = results["diagnostics"]["probes"]["references: solution"]
    assert probe["agreement"] == 1.0
    names = {path.parent.name for path in Path(config.output_dir).glob("syntheses/*/*.jsonl")}
    assert {"probe-order", "probe-answer"} <= names
    assert "probe-solution" not in names  # it asks what the plain row asked
