"""The preflight attacks the reward: holes of verifiers are found before a training, and good ones are
left in peace."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import bundle_row, options, write_rows

from a2r_train.config import parse
from a2r_train.data.builder import bundle_of
from a2r_train.data.read import read
from a2r_train.models import load_tokenizer
from a2r_train.prompts import Prompter
from a2r_train.records import CORRECT, INCORRECT, Bundle, Problem, Reference
from a2r_train.train import grpo
from a2r_train.train.attack import attacked
from a2r_train.train.preflight import Check
from a2r_train.verify.extract import written


def bundles_of(problems: Sequence[Problem]) -> list[Bundle]:
    """A right reference and a wrong one for each."""
    return [
        bundle_of(
            p,
            [
                Reference(written(p.answer, p.verifier), p.answer, CORRECT, 9),
                Reference(written("?", p.verifier), "?", INCORRECT, 9),
            ],
            p.id,
        )
        for p in problems
    ]


@pytest.fixture(scope="module")
def prompter(tiny: str) -> Prompter:
    return Prompter(load_tokenizer(tiny))


def holes(problems: Sequence[Problem], prompter: Prompter) -> list[str]:
    return [str(one) for one in attacked(bundles_of(problems), prompter) if one.is_hole]


def test_the_holes_of_puzzle24_and_propositional_logic(prompter: Prompter) -> None:
    pytest.importorskip("reasoning_gym")
    found = holes(read(Problem, "reasoning_gym:puzzle24,propositional_logic?size=30&seed=1"), prompter)
    assert any("'1*2*3*4' is paid by reasoning_gym on puzzle24 on 100% of 30 rows" in one for one in found)
    (disjunction,) = [one for one in found if "constant answer 'P ∨ Q'" in one]
    assert "on propositional_logic" in disjunction
    assert int(disjunction.partition("%")[0].rpartition(" ")[2]) > 50


def test_a_hole_in_one_task_is_found_beside_many_rows_of_others(prompter: Prompter) -> None:
    pytest.importorskip("reasoning_gym")
    small = read(Problem, "reasoning_gym:puzzle24?size=6")
    many = read(Problem, "reasoning_gym:number_sequence?size=120")
    assert any("puzzle24" in one for one in holes([*many, *small], prompter))


@pytest.mark.parametrize(
    "problems", ["data/code/train.jsonl", "data/code/test.jsonl", "data/tiny/validation.jsonl"]
)
def test_nothing_is_found_where_there_is_no_hole(problems: str, prompter: Prompter) -> None:
    assert holes(read(Problem, problems)[:60], prompter) == []


def test_tests_that_a_constant_passes(prompter: Prompter) -> None:
    def problem(number: int) -> Problem:
        name = f"is_even_{number}"
        tests = [f"assert {name}({2 * n}) == True" for n in range(3)]
        code = f"def {name}(n):\n    return n % 2 == 0"
        return Problem(str(number), "Is it even?", code, "python_tests", metadata={"test_list": tests})

    found = holes([problem(number) for number in range(8)], prompter)
    says = "a function that returns True is paid by python_tests on 100% of 8 rows"
    assert any(says in one for one in found)


VERIFIERS = """
def contains(answer, gold):
    return gold in answer

def generous(answer, gold):
    return answer != ""

def reads_all(answer, gold, text):
    return gold in text

def close(answer, gold):
    try:
        return abs(float(answer) - float(gold)) < 0.01
    except ValueError:
        return False
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "attackable.py").write_text(VERIFIERS)
    monkeypatch.chdir(tmp_path)
    return "attackable"


def asked(verifier: str) -> list[Problem]:
    said = "What is {} and 7, which are {}?"
    return [Problem(str(i), said.format(i, i + 7), str(i + 7), verifier) for i in range(30)]


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("contains", "the problem's text as the answer"),
        ("generous", "the constant answer '0'"),
        ("reads_all", "the problem's text as the completion"),
    ],
)
def test_holes_of_own_verifiers(name: str, attack: str, own: str, prompter: Prompter) -> None:
    found = holes(asked(f"{own}:{name}"), prompter)
    assert any(one.startswith(f"{attack} is paid by {own}:{name}") for one in found)


def test_a_verifier_that_only_allows_for_rounding(own: str, prompter: Prompter) -> None:
    assert holes(asked(f"{own}:close"), prompter) == []


def test_an_answer_that_is_near_the_one_gold_of_all_problems(own: str, prompter: Prompter) -> None:
    """It is another spelling of it, as far as this verifier goes."""
    problems = [replace(problem, answer="5") for problem in asked(f"{own}:close")]
    bundles = [
        replace(b, references=[Reference(r"\boxed{5.001}", "5.001", CORRECT, 9)])
        for b in bundles_of(problems)
    ]
    assert not [one for one in attacked(bundles, prompter) if one.is_hole]


def checks(tiny: str, tmp_path: Path, verifier: str) -> dict[str, list[Check]]:
    rows = [bundle_row(p, [p.answer, "1000"]) for p in asked(verifier)[:12]]
    given = {
        "bundles": write_rows(tmp_path / "bundles.jsonl", rows), "model_name_or_path": tiny,
        "output_dir": tmp_path / "out", "max_completion_length": 16, "num_generations": 2,
        "per_device_train_batch_size": 4, "max_steps": 4, "save_steps": 4, "use_cpu": True,
        "report_to": "none",
    }  # fmt: skip
    found: dict[str, list[Check]] = {}
    for check in grpo.checks(*parse(grpo.ARGUMENTS, options(given))):
        found.setdefault(check.name, []).append(check)
    return found


def test_red_names_the_answer_and_its_rate(own: str, tiny: str, tmp_path: Path) -> None:
    (check,) = checks(tiny, tmp_path, f"{own}:generous")["attack"]
    assert check.color == "red"
    says = "is paid by attackable:generous on 100% of 12 rows with another gold, such as problem '0'"
    assert says in check.detail
    assert check.detail.endswith("fix the verifier, or leave these problems out")


def test_green_for_a_good_verifier(tiny: str, tmp_path: Path) -> None:
    (check,) = checks(tiny, tmp_path, "math")["attack"]
    assert check.color == "green"
