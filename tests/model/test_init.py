"""`a2r init`: columns, verifier and sizes are guessed, and each guess stands in a recipe."""

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import a2r, write_rows

from a2r_train.commands.init import _in_yaml, guessed, init
from a2r_train.config import load_recipe, load_yaml
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig

ROOT = Path(__file__).parents[2]
STAGES = {"explore", "bundle", "sft", "grpo", "grpo-no-references", "evaluate"}


@pytest.mark.parametrize(
    "text", ["*.jsonl", "[a].jsonl", "&a", "!b", "- c", "d: e", "f # g", "h,i", "ok/j k.jsonl"]
)
def test_a_path_is_read_from_a_recipe_as_it_was_given(text: str) -> None:
    assert yaml.safe_load(f"problems: {_in_yaml(text)}") == {"problems": text}


def table(path: Path, header: list[str], rows: list[list[str]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (["problem", "answer"], {}),
        (["question", "answer"], {}),
        (["Question", "Answer"], {"problem": "Question", "answer": "Answer"}),
        (["prompt", "solution"], {"problem": "prompt", "answer": "solution"}),
        (["query", "gold"], {"problem": "query", "answer": "gold"}),
    ],
)
def test_columns_are_guessed_by_their_usual_names(
    header: list[str], columns: dict[str, str], tmp_path: Path
) -> None:
    rows = [["nr", *header], *([str(i), f"What is {i} + {i}?", str(2 * i)] for i in range(60))]
    found = guessed(table(tmp_path / "p.csv", rows[0], rows[1:]))
    assert found.columns == columns
    assert found.verifier == "math"
    assert len(found.problems) == 60
    assert 5 <= found.test <= 25


def test_a_column_that_is_named_goes_before_a_guess(tmp_path: Path) -> None:
    rows = [{"prompt": "x?", "text": f"What is {i}?", "answer": str(i)} for i in range(20)]
    found = guessed(write_rows(tmp_path / "p.jsonl", rows), '{"problem": "text"}')
    assert found.columns == {"problem": "text"}
    assert found.problems[3].problem == "What is 3?"


@pytest.mark.parametrize(
    ("more", "column"),
    [
        ({}, "solution"),
        ({"label": 0}, "label"),
        ({"label": 0, "final_answer": "7"}, "final_answer"),
        ({"expected_answer": "7"}, "expected_answer"),
    ],
)
def test_a_worked_solution_is_the_last_guess_and_its_box_is_read(
    more: dict[str, Any], column: str, tmp_path: Path
) -> None:
    rows = [
        {
            "problem": f"{i} + {i}?",
            "level": "1",
            "solution": rf"We add {i} twice: $\boxed{{{2 * i}}}$.",
            **more,
        }
        for i in range(20)
    ]
    found = guessed(write_rows(tmp_path / "p.jsonl", rows))
    assert (found.held["answer"], found.verifier) == (column, "math")
    assert found.problems[3].answer == str({"solution": 6, "label": 0}.get(column, 7))


def test_answers_that_are_sentences_are_one_line(tmp_path: Path) -> None:
    says = "Take away the cups that broke on Monday, count the others, and that is what is left of {}."
    rows = [{"problem": f"{i}?", "answer": says.format(i)} for i in range(20)]
    with pytest.raises(
        InputError, match=r"p\.jsonl: the answers are sentences, such as 'Take away .*--columns"
    ):
        guessed(write_rows(tmp_path / "p.jsonl", rows))
    found = guessed(write_rows(tmp_path / "p.jsonl", [row | {"verifier": "exact"} for row in rows]))
    assert found.verifier == ""


@pytest.mark.parametrize("mark", [r"\boxed{%d}", r"\fbox{%d}", "%d\n#### %d"])
def test_worked_answers_in_another_column_are_one_line(mark: str, tmp_path: Path) -> None:
    """`exact` would judge them, and no completion is ever right."""
    golds = [f"so {mark.replace('%d', str(i))}" for i in range(10)]
    path = write_rows(tmp_path / "p.jsonl", [{"problem": f"{i}?", "answer": g} for i, g in enumerate(golds)])
    with pytest.raises(
        InputError, match=r"10 of 10 answers are worked solutions, such as 'so .*call this one"
    ):
        guessed(path)


@pytest.mark.parametrize("share", [-0.1, 1.0, 25])
def test_a_share_that_is_none_is_refused(share: float, problems: str) -> None:
    with pytest.raises(InputError, match=f"test_share is {share:g}; expected"):
        guessed(problems, test_share=share)


@pytest.mark.parametrize(
    ("rows", "verifier"),
    [
        ([{"problem": f"{i}?", "answer": "ABCD"[i % 4]} for i in range(20)], "multiple_choice"),
        ([{"problem": f"{i}?", "answer": "\\frac{" + str(i)} for i in range(20)], "exact"),
        ([{"problem": f"{i}?", "answer": str(i), "verifier": "exact"} for i in range(20)], ""),
        ([{"question": f"{i}?", "choices": ["x", "y"], "answer": "B"} for i in range(20)], ""),
    ],
)
def test_the_verifier_is_guessed_from_the_answers(rows: list[dict], verifier: str, tmp_path: Path) -> None:
    assert guessed(write_rows(tmp_path / "p.jsonl", rows)).verifier == verifier


@pytest.mark.parametrize(
    ("verifier", "says"),
    [
        ("multiple_choise", r"expected math, .*; did you mean 'multiple_choice'\?$"),
        ("Python tests", r"expected math, .*; did you mean 'python_tests'\?$"),
        ("human", r"expected math, .*, or package.module.function$"),
        ("own_checks.nowhere", "No module named 'own_checks'"),
    ],
)
def test_an_unknown_verifier_of_a_row_is_one_line(verifier: str, says: str, tmp_path: Path) -> None:
    rows = [
        {"problem": f"{i}?", "answer": str(i)} | ({"verifier": verifier} if i == 3 else {}) for i in range(20)
    ]
    with pytest.raises(InputError, match=rf"p\.jsonl: row 4, problem '3': verifier '{verifier}'.*{says}"):
        guessed(write_rows(tmp_path / "p.jsonl", rows))


def test_a_gold_that_the_verifier_of_its_row_cannot_read_is_one_line(tmp_path: Path) -> None:
    rows = [{"problem": f"{i}?", "answer": str(i), "verifier": "math_last_number"} for i in range(20)]
    rows[7]["answer"] = r"\frac{"
    with pytest.raises(InputError, match=r"p\.jsonl: .* cannot parse the gold answer of 1 problem: row 8"):
        guessed(write_rows(tmp_path / "p.jsonl", rows))


def choices(path: Path, generations: int = 0) -> str:
    """Twenty questions with options, and rollouts in a column if asked."""
    made = []
    for i in range(20):
        row = {"question": f"What is {i} + 1?", "options": str([i, i + 1, i + 2]), "answer": "B"}
        texts = [rf"So \boxed{{{'B' if n % 2 else 'C'}}}" for n in range(generations)]
        made.append(row | ({"generations": str(texts)} if texts else {}))
    return table(path, [*made[0]], [[*row.values()] for row in made])


def test_the_columns_and_the_verifier_are_said_by_name(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = init("mine", choices(tmp_path / "p.csv"), tiny)
    assert "(problem in 'question', answer in 'answer'), judged by multiple_choice, as the rows say" in said
    asked = load_yaml("mine/prompt.yaml")
    assert all(
        "letter of the right option" in asked[f"{who}_template"] for who in ("explorer", "synthesizer")
    )


def test_a_prompt_of_the_model_that_asks_for_no_letter_is_told(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, "trained")
    lengths = {"max_prompt_tokens": 256, "max_reference_tokens": 32}
    second = "{problem}\n{references}\nPut the letter of the right option in \\boxed{{}}."
    asked = PromptConfig(explorer_template="{problem}", synthesizer_template=second, **lengths)
    Path("trained/prompt.yaml").write_text(asked.dump())
    init("mine", choices(tmp_path / "p.csv"), "trained")
    assert "its explorer_template does not ask for a letter" in caplog.text
    caplog.clear()
    assert a2r("run", "mine", "--dry_run") == 0
    assert "its explorer_template does not ask for a letter" in caplog.text


def test_rollouts_that_are_there_are_taken(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = init("mine", choices(tmp_path / "p.csv", generations=6), tiny)
    assert "its 120 rollouts are used, and nothing is explored" in said
    assert {path.stem for path in (tmp_path / "mine").iterdir()} == {*STAGES, "task", "prompt"} - {"explore"}
    recipe = load_recipe("mine/bundle.yaml")
    assert (recipe["rollouts"], recipe.get("problems")) == (str(tmp_path / "p.csv"), None)
    assert load_recipe("mine/evaluate.yaml")["explorer"] == ""
    assert a2r("run", "mine", "--dry_run") == 0
    shown = capsys.readouterr().out
    assert re.search(r"\d+ train and \d+ test bundles; left out: ", shown)
    assert "--- the first prompt, of mine/bundle.yaml" in shown


def mbpp(number: int, **more: Any) -> dict[str, Any]:
    code, test = f"def f{number}(a):\n    return a", f"assert f{number}(1) == 1"
    return {"task_id": number, "text": "Write it.", "code": code, "test_list": [test], **more}


def test_rows_of_mbpp_are_problems_and_may_hold_rollouts(tmp_path: Path) -> None:
    found = guessed(write_rows(tmp_path / "p.jsonl", [mbpp(i) for i in range(12)]))
    assert (len(found.problems), found.rollouts, found.verifier) == (12, 0, "")
    rows = [mbpp(i, generations=["```python\nx\n```"] * 5) for i in range(12)]
    found = guessed(write_rows(tmp_path / "r.jsonl", rows))
    assert (len(found.problems), found.rollouts, found.each) == (12, 60, 5)
    assert [problem.id for problem in found.problems] == [str(i) for i in range(12)]
    assert guessed("data/code/train.jsonl").rollouts == 0  # as docs/code.md begins


def test_ids_beside_several_solutions_are_those_of_the_problems(tmp_path: Path) -> None:
    row = {"answer": "1", "generations": ["a", "b"]}
    rows = [{"id": f"own-{i}", "problem": f"{i}?", **row} for i in range(12)]
    found = guessed(write_rows(tmp_path / "p.jsonl", rows))
    assert [problem.id for problem in found.problems] == [f"own-{i}" for i in range(12)]


@pytest.mark.parametrize(("each", "rollouts"), [(1, 0), (3, 60)])
def test_one_solution_a_problem_is_no_rollout(each: int, rollouts: int, tmp_path: Path) -> None:
    rows = [
        {"problem": f"{i}?", "answer": str(i), "response": rf"\boxed{{{n}}}"}
        for i in range(20)
        for n in range(each)
    ]
    found = guessed(write_rows(tmp_path / "p.jsonl", rows))
    assert (len(found.problems), found.rollouts, found.each) == (20, rollouts, each if rollouts else 0)


def test_no_likely_column_is_one_line_with_what_is_there(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", [{"a": "x", "b": "y"}] * 9)
    with pytest.raises(InputError, match=r"p\.jsonl:1: no column 'problem'; the columns are a, b"):
        guessed(path)


@pytest.mark.parametrize(
    ("row", "columns", "says"),
    [
        ({"frage": "1?", "answer": "1"}, "{}", r"columns are answer, frage \(map names with `--columns`\)$"),
        (
            {"frage": "1?", "answer": "1"},
            '{"problem": "frag"}',
            """then set --columns '{"problem": "frage"}'""",
        ),
    ],
)
def test_a_command_names_columns_by_its_flag(row: dict, columns: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        guessed(write_rows(tmp_path / "p.jsonl", [row] * 9), columns)


def test_a_gold_that_cannot_be_read_among_many_is_a_mistake(tmp_path: Path) -> None:
    rows = [{"problem": f"{i} more?", "answer": str(i)} for i in range(20)]
    rows[7]["answer"] = r"\frac{"
    path = write_rows(tmp_path / "p.jsonl", rows)
    with pytest.raises(
        InputError, match=r"p\.jsonl: the verifier cannot parse the gold answer of 1 problem: row 8"
    ):
        guessed(path)
    rows = [row | {"answer": r"\frac{" + row["answer"]} for row in rows]  # answers of another kind
    assert guessed(write_rows(tmp_path / "p.jsonl", rows)).verifier == "exact"


def test_too_few_problems(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", [{"problem": f"{i}?", "answer": "1"} for i in range(5)])
    with pytest.raises(InputError, match="5 problems; expected at least 8"):
        guessed(path)


def test_a_folder_is_written_with_comments_and_reads_as_it_is(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(40)]
    write_rows(tmp_path / "mine.jsonl", rows)
    assert a2r("init", "mine", "--data", "mine.jsonl", "--model", tiny) == 0
    said = capsys.readouterr().out
    assert "mine.jsonl: 40 problems (problem in 'prompt', answer in 'answer'), judged by math" in said
    tests = int(re.search(r"; (\d+) are the test set", said)[1])
    assert ("too few to show most differences" in said) == (tests < 20)
    assert f"{tests} of the 40 ({tests / 40:.0%}), never trained on" in Path("mine/bundle.yaml").read_text()
    assert {path.stem for path in (tmp_path / "mine").iterdir()} == {*STAGES, "task", "prompt"}
    assert load_yaml("mine/task.yaml") == {
        "prompt": "mine/prompt.yaml",
        "columns": {"problem": "prompt"},
        "verifier": "math",
    }
    for stage in STAGES:
        text = (tmp_path / "mine" / f"{stage}.yaml").read_text()
        assert f"a2r {stage.partition('-')[0]} --config mine/{stage}.yaml" in text
        assert load_recipe(f"mine/{stage}.yaml")["output_dir"].startswith("runs/mine/")
        assert max(map(len, text.splitlines())) <= 130
    assert load_recipe("mine/grpo-no-references.yaml")["plain_share"] == 1
    control = Path("mine/grpo-no-references.yaml").read_text()
    Path("mine/grpo-no-references.yaml").write_text(control.replace("# match_tokens_of:", "match_tokens_of:"))
    assert load_recipe("mine/grpo-no-references.yaml")["match_tokens_of"] == "runs/mine/grpo"
    assert a2r("run", "mine", "--dry_run") == 0


def test_references_may_be_shown_as_answers_alone(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = load_yaml(str(ROOT / "recipes/prompts/prompt-answers.yaml"))
    monkeypatch.chdir(tmp_path)
    names = ("reference", "reference_template", "reference_separator", "synthesizer_template")
    tags = [{**row, "verifier": "exact"} for row in rows()]
    for name, data, asked in (
        ("numbers", rows(), r"put the final answer in \boxed{{}}"),
        (
            "letters",
            [{**row, "answer": "ABCD"[i % 4]} for i, row in enumerate(rows())],
            "put the letter of the",
        ),
        ("words", tags, r"put the final answer in \boxed{{}}"),
    ):
        write_rows(tmp_path / f"{name}.jsonl", data)
        command = ("init", name, "--data", f"{name}.jsonl", "--model", tiny, "--reference", "answer")
        assert a2r(*command) == 0
        prompt = load_yaml(f"{name}/prompt.yaml")
        assert asked in prompt["synthesizer_template"]
        if name != "letters":
            assert {key: prompt[key] for key in names} == {key: measured[key] for key in names}
    assert a2r("run", "numbers", "--dry_run") == 0


def test_answers_alone_that_cannot_be_shown_are_one_line(tmp_path: Path, tiny: str) -> None:
    numbers = write_rows(tmp_path / "p.jsonl", rows())
    code = str(ROOT / "data/code/train.jsonl")
    trained = shutil.copytree(tiny, tmp_path / "trained")
    (trained / "prompt.yaml").write_text(PromptConfig().dump())
    for data, model, reference, says in (
        (numbers, tiny, "answers", "--reference answers: expected solution or answer"),
        (numbers, str(trained), "answer", "was trained with its own prompt.yaml"),
        (code, tiny, "answer", "an answer that is a program is a whole solution"),
    ):
        with pytest.raises(InputError, match=says):
            init(str(tmp_path / "mine"), data, model, reference=reference)
    assert not (tmp_path / "mine").exists()


def test_nothing_is_overwritten(tmp_path: Path, tiny: str, problems: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(InputError, match="already holds something; name a new folder"):
        init(str(tmp_path / "mine"), problems, tiny)


def test_a_model_that_cannot_be_trained(tmp_path: Path, problems: str) -> None:
    with pytest.raises(InputError, match=r"convert it to a folder first: a2r merge --model m\.gguf"):
        init(str(tmp_path / "mine"), problems, "m.gguf")
    with pytest.raises(InputError, match="no such folder or file"):
        init(str(tmp_path / "mine"), write_rows(tmp_path / "p.jsonl", rows()), "./nowhere")
    assert not (tmp_path / "mine").exists()


def rows() -> list[dict[str, str]]:
    return [{"problem": f"What is {i}?", "answer": str(i)} for i in range(20)]


@pytest.mark.parametrize("null", [0, 7])
def test_a_row_without_its_rollouts_is_named_wherever_it_is(null: int, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"problem": f"{i}?", "answer": str(i), "generations": [r"\boxed{1}"] * 3} for i in range(12)
    ]
    rows[null]["generations"] = None
    with pytest.raises(InputError, match=rf"p\.jsonl:{null + 1}: column 'generations' has no value here"):
        guessed(write_rows(tmp_path / "p.jsonl", rows))


def test_a_remark_beside_some_problems_is_no_rollout(tmp_path: Path) -> None:
    rows = [{"problem": f"{i}?", "answer": str(i), "response": "x" if i % 3 else None} for i in range(12)]
    assert guessed(write_rows(tmp_path / "p.jsonl", rows)).rollouts == 0
