"""Data of one's own: other layouts, verdicts and golds of others, files that were mixed up or changed, and
bare questions.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import a2r, write_rows

from a2r_train import output
from a2r_train.data.builder import bundle_of
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.explore import ExploreConfig, explore, load_problems
from a2r_train.data.read import Columns, read
from a2r_train.data.rollouts import check_references, load_rollouts
from a2r_train.engines import Completion, Sampling, load_engine
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.inference.solve import read_questions
from a2r_train.inference.two_stage import TwoStage
from a2r_train.models import load_tokenizer
from a2r_train.records import Bundle, Problem, Reference, Rollout
from a2r_train.train import sft


def near(answer: str, gold: str) -> bool:
    """A verifier of one's own."""
    return abs(int(answer) - int(gold)) <= 1


def rows_of(path: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """A copy of a file, beside it, whose rows are changed."""
    changed = [change(json.loads(line)) for line in Path(path).read_text().splitlines()]
    return write_rows(Path(path).with_name(f"changed-{Path(path).name}"), changed)


def outside(tmp_path: Path, count: int = 12, **more: Any) -> str:
    """Rollouts made elsewhere: four of each problem, whose answer is its number; the first two are right."""
    rows = [
        {"problem": f"Say {i}.", "answer": str(i), "text": rf"So \boxed{{{i if n < 2 else 99}}}", **more}
        for i in range(1, count + 1)
        for n in range(4)
    ]
    return write_rows(tmp_path / "outside.jsonl", rows)


def test_rollouts_of_other_problems_are_refused_by_bundle(
    problems: str, rollouts: str, tmp_path: Path
) -> None:
    """Ids alone would fit: the numbers of lines do for any two files."""
    other = rows_of(
        problems,
        lambda row: {**row, "problem": f"{row['problem']} And 1?", "answer": str(int(row["answer"]) + 1)},
    )
    with pytest.raises(
        InputError, match=r"sample 0 of problem 'p2' is said to be correct with '6', and .* has '7'"
    ):
        bundle(BundleConfig(rollouts, str(tmp_path / "out"), other))
    assert not (tmp_path / "out").exists()


def test_rollouts_of_other_problems_are_refused_by_evaluate(config: EvaluateConfig) -> None:
    other = rows_of(config.rollouts, lambda row: {**row, "answer": str(int(row["answer"]) + 1)})
    with pytest.raises(
        InputError, match=r"sample 0 of problem 'p2' is said to be correct with '7', and .* has '6'"
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


def test_a_key_that_came_later_and_is_empty_makes_no_other_run(
    problems: str, rollouts: str, tmp_path: Path
) -> None:
    config = BundleConfig(rollouts, str(tmp_path / "out"), problems)
    folder = bundle(config)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("verifier: ''\n", ""))
    assert "verifier" not in (folder / "config.yaml").read_text()
    bundle(config)
    with pytest.raises(InputError, match=r"belongs to another run .verifier: None there, 'exact' here"):
        bundle(replace(config, verifier="exact"))


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


def test_what_comes_with_rollouts_made_elsewhere_is_kept(tmp_path: Path) -> None:
    more = {"verifier": "test_own_data.near", "source": "mine", "completion_tokens": 11, "model": "theirs"}
    rows = [
        {"problem": "Say 100.", "answer": "100", "text": r"\boxed{99}", "problem_id": "q7", **more}
        for _ in range(4)
    ]
    (problem,), found = load_rollouts("", write_rows(tmp_path / "own.jsonl", rows))
    assert problem == Problem("q7", "Say 100.", "100", "test_own_data.near", "mine")
    assert {(r.problem_id, r.verdict, r.completion_tokens, r.model) for r in found} == {
        ("q7", "correct", 11, "theirs")
    }


def test_one_verifier_may_judge_all_rows(problems: str, tiny: str, tmp_path: Path) -> None:
    """As a data set of others has no column for it; in both stages that read problems."""
    own = "test_own_data.near"
    rows = [{"problem_id": "p1", "sample": i, "text": rf"\boxed{{{3 + i}}}"} for i in range(4)]
    path = write_rows(tmp_path / "own.jsonl", rows)
    verdicts = [r.verdict for r in load_rollouts(problems, path, verifier=own)[1]]
    assert verdicts == ["correct", "correct", "incorrect", "incorrect"]
    by_math = write_rows(tmp_path / "math.jsonl", [asdict(r) for r in load_rollouts(problems, path)[1]])
    assert [
        r.verdict for r in load_rollouts(problems, by_math, verifier=own)[1]
    ] == verdicts  # and not those of math
    by_own = write_rows(
        tmp_path / "near.jsonl", [asdict(r) for r in load_rollouts(problems, path, verifier=own)[1]]
    )
    with pytest.raises(
        InputError,
        match=r"said to be correct with '4', and .* has '3'; name the problems .*, and their verifier",
    ):
        load_rollouts(problems, by_own)
    folder = bundle(BundleConfig(path, str(tmp_path / "b"), problems, verifier=own))
    (made,) = read(Bundle, str(folder / "train.jsonl"))
    assert (made.verifier, made.n_correct) == (own, 2)
    config = ExploreConfig(problems, tiny, str(tmp_path / "x"), verifier=own)
    assert {problem.verifier for problem in load_problems(config)} == {own}


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"answer": "999"}, r":2: answer '999', and .*:1 has '1' for the same problem"),
        ({"completion_tokens": 2.5}, r":2: field 'completion_tokens': 2.5; expected a whole number"),
        ({"problem": "Say 2.", "problem_id": "a"}, r":2: problem_id 'a', which .*:1 has for another problem"),
        ({"text": None}, r":2: column 'text' has no value here"),
        ({"text": ["1", "2"]}, r":2: field 'text': a list; expected text"),
        ({"answer": None}, r":2: column 'answer' has no value here"),
        ({"completion_tokens": "many"}, r":2: field 'completion_tokens': 'many'; expected a whole number"),
    ],
)
def test_rows_made_elsewhere_that_contradict_or_are_empty(
    second: dict[str, Any], says: str, tmp_path: Path
) -> None:
    first = {"problem": "Say 1.", "answer": "1", "text": r"\boxed{1}", "problem_id": "a"}
    with pytest.raises(InputError, match=says):
        load_rollouts("", write_rows(tmp_path / "own.jsonl", [first, {**first, **second}]))


def test_rows_made_elsewhere_may_say_the_same_in_other_ways(tmp_path: Path) -> None:
    first = {
        "problem": "Say 5.",
        "answer": "5",
        "text": r"\boxed{5}",
        "completion_tokens": 3.0,
        "source": ["a", "b"],
    }
    path = write_rows(tmp_path / "own.jsonl", [first, {**first, "answer": "5.0", "model": {"name": "m"}}])
    (problem,), found = load_rollouts("", path)
    assert (problem.answer, problem.source) == ("5", "")
    assert [(r.completion_tokens, r.model) for r in found] == [(3, ""), (3, "")]


def test_verdicts_of_others_are_refused_or_judged_anew(problems: str, tmp_path: Path) -> None:
    rows = [
        {"problem_id": "p1", "sample": i, "text": r"\boxed{3}", "verdict": verdict}
        for i, verdict in enumerate(("correct", "wrong"))
    ]
    with pytest.raises(
        InputError,
        match=r":2: field 'verdict': 'wrong'; expected correct, incorrect, unparsable, timeout, unverified",
    ):
        load_rollouts(problems, write_rows(tmp_path / "own.jsonl", rows))
    said = [("correct", "3"), ("correct", "4"), ("incorrect", "3"), ("incorrect", "4"), ("unparsable", "3")]
    rows = [
        {**rows[0], "sample": i, "verdict": verdict, "text": rf"\boxed{{{n}}}"}
        for i, (verdict, n) in enumerate(said)
    ]
    _, found = load_rollouts(problems, write_rows(tmp_path / "own.jsonl", rows))
    judged = [("3", "correct"), ("4", "incorrect")]
    assert [(r.answer, r.verdict) for r in found] == [*judged, *judged, ("3", "correct")]


def test_a_gold_that_was_mended_after_exploring_counts(problems: str, tmp_path: Path) -> None:
    """The rollouts were judged by another gold then: whatever they say, the text decides."""
    texts = {r"\boxed{3}": "correct", r"\boxed{4}": "incorrect", r"\boxed{4} \boxed{3}": "incorrect"}
    rows = [
        {"problem_id": "p1", "sample": i, "text": text, "answer": text[-2], "verdict": "incorrect"}
        for i, text in enumerate(texts)
    ]
    _, found = load_rollouts(problems, write_rows(tmp_path / "own.jsonl", rows))
    assert [r.verdict for r in found] == list(texts.values())


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


def test_a_file_without_rollouts_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"own\.jsonl: no rows; expected at least one rollout"):
        load_rollouts("", write_rows(tmp_path / "own.jsonl", []))


def test_bundles_without_references_are_refused(bundles: str) -> None:
    with pytest.raises(InputError, match=r"changed-.*:1: no references; expected at least one"):
        read(Bundle, rows_of(bundles, lambda row: {**row, "references": []}))


@pytest.mark.parametrize(
    ("row", "columns", "says"),
    [
        (
            {"question": "1?", "gold": "1"},
            {},
            r":1: no column 'answer'; the columns are gold, question \(is it 'gold'\? then say columns: ",
        ),
        (
            {"ask": "1?", "answer": "1"},
            {"probem": "ask"},
            "columns: unknown key 'probem'; did you mean 'problem'",
        ),
    ],
)
def test_a_layout_that_is_not_mapped_is_named(
    row: dict[str, str], columns: dict[str, str], says: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "own.jsonl", [row])
    with pytest.raises(InputError, match=says):
        read(Problem, path, Columns.parse(json.dumps(columns)))


def test_gsm8k_may_be_mapped_to_what_it_is(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "own.jsonl", [{"question": "6 * 7?", "answer": "Six times seven.\n#### 42"}])
    assert (
        read(Problem, path, Columns({"problem": "question"}))
        == read(Problem, path)
        == [Problem("0", "6 * 7?", "42")]
    )
    path = write_rows(
        tmp_path / "pair.jsonl", [{"question": "Where?", "answer": "(1,2)"}]
    )  # not GSM8K's: no thousands
    assert (
        read(Problem, path, Columns({"problem": "question"}))
        == read(Problem, path)
        == [Problem("0", "Where?", "(1,2)")]
    )


def test_columns_of_a_recipe_may_be_a_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(
        tmp_path / "own.jsonl",
        [{"ask": rf"Say {i}.", "gold": str(i), "said": rf"\boxed{{{i}}}"} for i in range(9)],
    )
    recipe = tmp_path / "bundle.yaml"
    recipe.write_text(
        f"rollouts: {path}\noutput_dir: {tmp_path}/b\nk: 1\ncolumns: "
        "{problem: ask, answer: gold, text: said}\n"
    )
    assert a2r("bundle", "--config", str(recipe)) == 0, capsys.readouterr().err
    assert len(read(Bundle, str(tmp_path / "b" / "train.jsonl"))) == 9


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test_share": 1.5}, r"test_share is 1.5; expected 0 or more, and less than 1"),
        ({"k": 9}, "lower k, or explore with more samples"),
        ({"test_share": 0.4}, "change decontamination, or take other problems"),
    ],
)
def test_the_mend_is_that_of_the_reason(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    rows = [
        {"problem": f"{words}{i}", "answer": str(i), "text": rf"\boxed{{{i}}} {n}"}
        for i in range(12)
        for n in range(4)
    ]
    config = BundleConfig(write_rows(tmp_path / "own.jsonl", rows), str(tmp_path / "b"))
    with pytest.raises(InputError, match=says):
        bundle(replace(config, **changes))


class Echo:
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


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "1?"}], r":1: no column 'problem'; the columns are text \(is it 'text'\? then say "),
        ([{"problem": "1?"}, {"problem": "2?", "references": ["2"]}], "references in some rows alone"),
        ([], "no rows; expected at least one problem"),
        ([{"problem": " "}], ":1: field 'problem' is empty; every problem needs one"),
        ([{"problem": "1?", "references": ["2", None]}], ":1: field 'references': null; expected text"),
        (
            [{"problem": "1?", "verifier": "maths"}],
            "verifier 'maths': expected math, math_last_number, exact, multiple_choice",
        ),
        ([{"problem": "1?", "verifier": "nowhere.check"}], "verifier 'nowhere.check': ModuleNotFoundError"),
    ],
)
def test_a_file_of_questions_that_cannot_be_read(
    rows: list[dict[str, Any]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        read_questions(write_rows(tmp_path / "q.jsonl", rows), Columns())


def test_a_right_reference_has_the_answer_of_its_bundle() -> None:
    """As where the answers of a problem file were changed, and the bundles kept."""
    references = [Reference("1", "5.0", "correct", 1), Reference("2", "7", "incorrect", 1)]
    good = bundle_of(Problem("a", "2+3?", "5"), references, "a")
    own = replace(good, answer="9", verifier="fnmatch:fnmatch")  # what its gold means is its own affair
    check_references([good, own], "b.jsonl")
    with pytest.raises(
        InputError, match=r"^b\.jsonl: bundle 'a' has a reference that is said to be correct with '5\.0'"
    ):
        check_references([good, replace(good, answer="6")], "b.jsonl")
