"""Data of one's own, explored, trained on, evaluated and solved with a model."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import a2r, options, write_rows
from test_own_data import rows_of

from a2r_train import output
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.data.read import read
from a2r_train.engines import Completion, Engine, Sampling, load_engine
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate, run
from a2r_train.evaluate.comparison import load
from a2r_train.evaluate.kept import rescore
from a2r_train.inference.two_stage import TwoStage
from a2r_train.models import load_tokenizer
from a2r_train.records import Bundle, Rollout
from a2r_train.train import sft


def outside(tmp_path: Path, count: int = 12, **more: Any) -> str:
    """Rollouts made elsewhere: four of each problem, whose answer is its number; the first two are right."""
    rows = [
        {"problem": f"Say {i}.", "answer": str(i), "text": rf"So \boxed{{{i if n < 2 else 99}}}", **more}
        for i in range(1, count + 1)
        for n in range(4)
    ]
    return write_rows(tmp_path / "outside.jsonl", rows)


def test_rollouts_beside_rollouts_made_elsewhere_are_refused(config: EvaluateConfig, tmp_path: Path) -> None:
    given = replace(config, bundles=outside(tmp_path))
    with pytest.raises(
        InputError, match=r"^rollouts: .*outside\.jsonl holds rollouts itself.*remove the key$"
    ):
        evaluate(given)


def test_rollouts_of_other_problems_are_refused_by_evaluate(config: EvaluateConfig) -> None:
    other = rows_of(config.rollouts, lambda row: {**row, "answer": str(int(row["answer"]) + 1)})
    with pytest.raises(
        InputError, match=r"sample 0 of problem 'p2' is marked correct with '7', but .* has '6'"
    ):
        evaluate(replace(config, rollouts=other))
    assert not Path(config.output_dir).exists()


def test_rollouts_of_another_exploration_vote_and_are_named(
    config: EvaluateConfig, caplog: pytest.LogCaptureFixture
) -> None:
    other = rows_of(config.rollouts, lambda row: {**row, "text": f"Again: {row['text']}"})
    rows = {row["name"] for row in evaluate(replace(config, rollouts=other))["rows"]}
    assert "maj@equal_tokens" in rows
    assert f"{other}: no reference of any bundle is among the rollouts of its problem" in caplog.text


def test_references_of_another_exploration_are_counted(
    config: EvaluateConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Not those that are rollouts with other token counts."""
    uncounted = rows_of(config.rollouts, lambda row: {**row, "completion_tokens": 1})
    evaluate(replace(config, rollouts=uncounted))
    assert "not all references" not in caplog.text
    first = rows_of(config.rollouts, lambda row: row)
    rows = Path(first).read_text().splitlines(keepends=True)
    Path(first).write_text("".join(rows[:3] + rows[6:]))
    evaluate(replace(config, rollouts=first, output_dir=f"{config.output_dir}-2"))
    assert f"{first}: not all references of 1 of 7 bundles are among the rollouts" in caplog.text


def test_a_corrected_gold_gives_references_their_verdicts(
    config: EvaluateConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """In evaluation, its validation bundles, `a2r compare` and `a2r rescore`; the gold of p1 was wrong."""

    def corrected(row: dict[str, Any]) -> dict[str, Any]:
        given = row["references"][0]["answer"]
        return {**row, "answer": given} if row["problem_id"] == "p1" else row

    validation = rows_of(config.bundles, corrected)
    given = replace(config, bundles=shutil.copy(config.bundles, f"{config.output_dir}-bundles.jsonl"))
    old = {row["name"]: row["accuracy"] for row in evaluate(given)["rows"]}

    def right_references(name: str) -> float:
        setting = load(Path(given.output_dir), name)
        [count] = [n for n, one in zip(setting.n_correct, setting.problems, strict=True) if '"p1"' in one]
        return float(count)

    assert right_references("old") == 0
    assert rescore(Path(given.output_dir)).said == []
    assert not caplog.messages or "another verdict" not in caplog.text

    shutil.copy(validation, given.bundles)
    says = "1 of 28 references get another verdict than when they were bundled"
    assert right_references("new") == 1
    assert f"{given.bundles}: {says}" in caplog.text
    assert any(line.startswith("row maj@4: accuracy") for line in rescore(Path(given.output_dir)).said)
    caplog.clear()
    again = replace(given, output_dir=f"{config.output_dir}-new", adaptive_validation=validation)
    new = {row["name"]: row["accuracy"] for row in evaluate(again)["rows"]}
    assert new["maj@4"] - old["maj@4"] == pytest.approx(1 / 4 / 7, abs=1e-5)  # one of four that tie
    assert [f"{path}: {says}" in caplog.text for path in (given.bundles, validation)] == [True, True]


def test_input_that_has_changed_is_no_finished_run(
    problems: str, rollouts: str, tiny: str, tmp_path: Path
) -> None:
    exploring = ExploreConfig(
        problems, tiny, str(tmp_path / "explored"), samples_per_problem=1, max_completion_tokens=4
    )
    bundling = BundleConfig(rollouts, str(tmp_path / "bundled"), problems)
    explore(exploring)
    bundle(bundling)
    explore(exploring)
    bundle(bundling)
    lines = Path(problems).read_text().splitlines(keepends=True)
    Path(problems).write_text("".join(reversed(lines)))
    for stage, config in ((explore, exploring), (bundle, bundling)):
        with pytest.raises(
            InputError, match=rf"{problems} has changed since this run; name another output folder"
        ):
            stage(config)  # type: ignore[operator]
    Path(problems).write_text("".join(lines))
    explore(exploring)  # as it was
    bundle(bundling)


def test_bundles_that_have_changed_are_no_finished_training(
    rollouts: str, problems: str, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle(BundleConfig(rollouts, str(tmp_path / "bundled"), problems))
    path = tmp_path / "bundled" / "train.jsonl"
    found = read(Bundle, str(path))
    targets = [
        {
            "bundle_id": b.id,
            "sample": 0,
            "text": rf"\boxed{{{b.answer}}}",
            "answer": b.answer,
            "verdict": "correct",
        }
        | {"prompt_tokens": 1, "completion_tokens": 5, "finish_reason": "stop", "model": "m", "seed": 0}
        for b in found
    ]
    given = [
        "--bundles",
        str(path),
        "--targets",
        write_rows(tmp_path / "targets.jsonl", targets),
        "--output_dir",
        str(tmp_path / "s"),
    ]
    given += ["--model_name_or_path", tiny, "--max_steps", "1", "--use_cpu", "true", "--report_to", "none"]
    assert sft.main(given) == 0
    write_rows(path, [asdict(b) for b in reversed(found)])
    capsys.readouterr()
    assert sft.main(given) == 2
    assert f"{path} has changed since this run" in capsys.readouterr().err
    kept = yaml.safe_load((tmp_path / "s" / "config.yaml").read_text())
    assert output.prepare(tmp_path / "s", kept, inputs=["targets"])
    assert not output.prepare(
        tmp_path / "s", kept, may_change=True, inputs=["bundles"]
    )  # as with resume_from_checkpoint


def test_a_verifier_that_has_changed_makes_another_training(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = tmp_path / "judge_of_a_training.py"
    code.write_text("def judge(answer, gold):\n    return answer == gold\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    named = outside(tmp_path, verifier="judge_of_a_training.judge")
    path = bundle(BundleConfig(named, str(tmp_path / "b"), k=4)) / "train.jsonl"
    kept = {"sample": 0, "verdict": "correct", "prompt_tokens": 1, "completion_tokens": 5, "seed": 0}
    targets = [
        {"bundle_id": b.id, "text": rf"\boxed{{{b.answer}}}", "answer": b.answer, **kept}
        | {"finish_reason": "stop", "model": "m"}
        for b in read(Bundle, str(path))
    ]
    given = {
        "bundles": path, "targets": write_rows(tmp_path / "t.jsonl", targets), "output_dir": tmp_path / "s",
        "model_name_or_path": tiny, "max_steps": 1, "use_cpu": True, "report_to": "none",
    }  # fmt: skip
    assert sft.main(options(given)) == 0
    assert sft.main(options(given)) == 0
    code.write_text(code.read_text() + "# edited\n")
    capsys.readouterr()
    assert sft.main(options(given)) == 2
    says = "verifier judge_of_a_training.judge has changed since this run"
    assert says in capsys.readouterr().err


def test_rollouts_made_elsewhere_go_through_to_a_table_with_equal_budgets(
    config: EvaluateConfig, tmp_path: Path
) -> None:
    """Bundle writes those of the test problems with ids, verdicts and token counts, as evaluate needs
    them.
    """
    folder = bundle(
        BundleConfig(outside(tmp_path), str(tmp_path / "b"), test_share=0.5, tokenizer=config.base)
    )
    tests, made = read(Bundle, str(folder / "test.jsonl")), read(Rollout, str(folder / "test-rollouts.jsonl"))
    assert {r.problem_id for r in made} == {b.problem_id for b in tests}
    length = len(load_tokenizer(config.base)(made[0].text, add_special_tokens=False)["input_ids"])
    assert made[0].completion_tokens == length
    assert all(b.references[0].tokens for b in tests)
    given = replace(config, bundles=str(folder / "test.jsonl"), rollouts=str(folder / "test-rollouts.jsonl"))
    rows = {row["name"]: row for row in evaluate(given)["rows"]}
    assert rows["pass@1"]["accuracy"] == 0.5
    assert rows["maj@4"]["tokens"] > 0
    assert "maj@equal_tokens" in rows


def test_an_evaluation_judges_rollouts_whatever_their_verdicts(config: EvaluateConfig) -> None:
    bare = rows_of(
        config.rollouts,
        lambda row: {key: row[key] for key in ("problem_id", "sample", "text", "completion_tokens")},
    )
    wrong = rows_of(bare, lambda row: {**row, "answer": "1", "verdict": "incorrect"})  # as by an earlier gold
    found = [
        evaluate(replace(config, rollouts=path, output_dir=f"{config.output_dir}{i}"))
        for i, path in enumerate((config.rollouts, bare, wrong))
    ]
    asked = ("pass@1", "pass@4", "maj@equal_tokens")
    first, second, third = (
        [(r["name"], r["accuracy"]) for r in one["rows"] if r["name"] in asked] for one in found
    )
    assert first == second == third
    assert len(first) == 3


def test_majorities_that_are_missing_are_said_to_be(
    config: EvaluateConfig, caplog: pytest.LogCaptureFixture
) -> None:
    free = rows_of(config.rollouts, lambda row: {**row, "completion_tokens": 0})
    names = {row["name"] for row in evaluate(replace(config, rollouts=free))["rows"]}
    assert "maj@equal_tokens" not in names
    assert "no token counts, so no majority at an equal budget" in caplog.text


def test_an_explorer_that_wrote_none_of_the_references_is_said(
    config: EvaluateConfig, caplog: pytest.LogCaptureFixture
) -> None:
    def by(model: str) -> str:
        return rows_of(
            config.bundles,
            lambda row: {**row, "references": [{**one, "model": model} for one in row["references"]]},
        )

    for model, said in (("theirs", True), (config.base, False)):
        caplog.clear()
        run.prepared(replace(config, bundles=by(model), explorer=config.base))
        assert (
            "the references were written by theirs, but costs are counted for the explorer" in caplog.text
        ) == said


class Echo(Engine):
    """A synthesizer that answers 7, and keeps what it was asked."""

    def __init__(self, model: str) -> None:
        engine = load_engine(model)
        self.name, self.parameters, self.tokenizer = engine.name, engine.parameters, engine.tokenizer
        self.asked: list[str] = []

    def generate(self, chats: Any, sampling: Sampling, seeds: Any) -> list[Completion]:
        assert sampling
        assert len(seeds) == len(chats)
        self.asked += [chat[-1]["content"] for chat in chats]
        return [Completion(r"\boxed{7}", 10, 5, "stop") for _ in chats]


def test_references_that_are_there_need_no_explorer(tiny: str) -> None:
    synthesizer = Echo(tiny)
    loop = TwoStage(None, synthesizer)
    answer = loop.synthesise("What is 3 + 4?", [r"I say \boxed{7}", r"I say \boxed{8}", "I do not know"])
    assert (answer.answer, [r.answer for r in answer.references]) == ("7", ["7", "8", ""])
    assert answer.tokens == {"explorer_prompt": 0, "references": 0, "synthesizer_prompt": 10, "synthesis": 5}
    (asked,) = synthesizer.asked
    assert "What is 3 + 4?" in asked
    assert asked.index(r"I say \boxed{7}") < asked.index(r"I say \boxed{8}") < asked.index("I do not know")
    with pytest.raises(InputError, match="no explorer"):
        loop.solve("What is 3 + 4?")
    with pytest.raises(InputError, match="no references"):
        loop.synthesise("What is 3 + 4?", [])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"k": 0}, "k is 0; expected at least 1"),
        ({"verifier": "multiple_choise"}, "verifier 'multiple_choise': expected math"),
    ],
)
def test_a_loop_that_cannot_work_is_refused(options: dict[str, Any], says: str, tiny: str) -> None:
    with pytest.raises(InputError, match=says):
        TwoStage(Echo(tiny), Echo(tiny), **options)


@pytest.mark.parametrize("with_references", [False, True])
def test_a_file_of_bare_questions_is_answered(
    with_references: bool, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No answer column, other names, and references or none."""
    rows = [
        {"ask": f"What is {i}?", "id": f"q{i}", **({"solutions": ["one", "two"]} if with_references else {})}
        for i in range(3)
    ]
    path = write_rows(tmp_path / "q.jsonl", rows)
    columns = {"problem": "ask"} | ({"references": "solutions"} if with_references else {})
    given = [
        "--file",
        path,
        "--columns",
        json.dumps(columns),
        "--k",
        "3",
        "--max_completion_tokens",
        "4",
        "--synthesizer",
        tiny,
    ]
    assert a2r("solve", *given, "--explorer", "/nowhere" if with_references else tiny) == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["id"], row["problem"]) for row in made] == [(row["id"], row["ask"]) for row in rows]
    assert all(
        [r["text"] for r in row["references"]] == ["one", "two"]
        if with_references
        else len(row["references"]) == 3
        for row in made
    )
