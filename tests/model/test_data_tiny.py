"""data/tiny: what is shipped is what the recipe makes, no problem comes twice, and the models and caps fit
the problems.
"""

import dataclasses
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pretrain_tiny
import pytest
import tiny_rows
import yaml
from tiny_problems import KINDS, LARGEST, Tale, draw
from tiny_rows import PretrainConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from a2r_train.data.read import read
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Problem, Reference, as_row
from a2r_train.verify import check_gold, judge_all

ROOT = Path(__file__).parents[2]

DATA, RECIPES = ROOT / "data" / "tiny", ROOT / "recipes" / "tiny"
SIZES = {"train": 4000, "validation": 1000, "test": 1500, "test_held_out": 300}
MODELS = ("explorer", "synthesizer", "monolith")
SIGNS = {"<": int.__lt__, "=": int.__eq__, ">": int.__gt__}


@pytest.fixture(scope="module")
def sets() -> dict[str, list[Problem]]:
    return {name: read(Problem, str(DATA / f"{name}.jsonl")) for name in SIZES}


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Tale]]:
    """The sets as the recipe draws them: after, and without, every problem of the pre-training and the
    curve.
    """
    config = PretrainConfig.load(str(RECIPES / "pretrain.yaml"))
    return tiny_rows.draw_sets(config, tiny_rows.pretrained_on(config))


@pytest.fixture(scope="module")
def tales() -> list[Tale]:
    rng = random.Random(0)
    return [draw(rng) for _ in range(20_000)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(DATA / "synthesizer")


class Bounded(random.Random):
    """Fails where more is drawn than any one loop needs."""

    left = 0

    def random(self) -> float:
        self.left -= 1
        assert self.left > 0, "does not terminate"
        return super().random()


def numbers_of(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", text))


def template_of(problem: Problem) -> str:
    return problem.source.rpartition("/")[2]


def lines_of(solution: str) -> tuple[list[bool], str, bool, int]:
    """Whether each line of a worked solution holds; the sign of its comparison; whether that holds; the boxed
    number.
    """
    steps = [
        {"+": a + b, "-": a - b, "*": a * b}[op] == r
        for a, op, b, r in (
            (int(a), op, int(b), int(r)) for a, op, b, r in re.findall(r"(\d+)([-+*])(\d+)=(\d+);", solution)
        )
    ]
    last, sign, told, boxed = re.fullmatch(r".*; (\d+)([<=>])(\d+); " r"\\boxed\{(\d+)\}", solution).groups()  # type: ignore[union-attr]
    return steps, sign, SIGNS[sign](int(last), int(told)), int(boxed)


def test_no_problem_comes_twice(sets: dict[str, list[Problem]]) -> None:
    everything = [p for problems in sets.values() for p in problems]
    assert {name: len(problems) for name, problems in sets.items()} == SIZES
    for key in (
        [p.id for p in everything],
        [p.problem for p in everything],
        [(template_of(p), numbers_of(p.problem)) for p in everything],
    ):
        assert len(set(key)) == sum(SIZES.values())


def test_held_out_templates_are_nowhere_else(sets: dict[str, list[Problem]]) -> None:
    held_out = {template_of(p) for p in sets["test_held_out"]}
    others = {template_of(p) for name in ("train", "validation", "test") for p in sets[name]}
    assert held_out
    assert not held_out & others


def test_every_gold_answer_parses_and_every_kind_and_difficulty_is_there(
    sets: dict[str, list[Problem]],
) -> None:
    for problems in sets.values():
        check_gold(problems, "problems")
        assert {p.verifier for p in problems} == {"math"}
        _, kinds, difficulties, _ = zip(*(p.source.split("/") for p in problems), strict=True)
        assert (set(kinds), set(difficulties)) == (set(KINDS), set("123"))


def test_the_files_are_what_the_recipe_draws(drawn: dict[str, list[Tale]]) -> None:
    for name, tales in drawn.items():
        rows = [
            json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        assert rows == [as_row(tiny_rows.as_problem(tale, name, i)) for i, tale in enumerate(tales)]
    assert all(tale.held_out == (name == "test_held_out") for name, tales in drawn.items() for tale in tales)


def test_stories_tell_every_number_of_their_steps(tales: list[Tale]) -> None:
    for tale in tales:
        used = {x for left, _, right in tale.steps for x in (left, right) if x >= 0}
        told = int(lines_of(tale.solution())[0] and re.findall(r"(\d+);", tale.solution())[-1])
        assert {*used, told} <= set(map(int, numbers_of(tale.text)))
        assert max(map(int, numbers_of(tale.text))) <= LARGEST


def test_worked_solutions_hold_and_wrong_ones_are_honest(tales: list[Tale]) -> None:
    rng = Bounded(1)
    for tale in tales:
        rng.left = 2000
        guess = tale.wrong_guess(rng)
        assert guess != tale.answer
        steps, sign, holds, boxed = lines_of(tale.solution())
        assert len(steps) == tale.difficulty + 1
        assert (all(steps), sign, holds, boxed) == (True, "=", True, tale.answer)
        steps, sign, holds, boxed = lines_of(tale.solution(guess))
        assert (all(steps), sign != "=", holds, boxed) == (True, True, True, guess)


def test_several_tries_are_single_ones_in_turn(tales: list[Tale]) -> None:
    rng = random.Random(4)
    for tale in tales[:2000]:
        guesses = [tale.wrong_guess(rng), tale.wrong_guess(rng), tale.answer]
        told = tale.tries(guesses)
        assert told.count("\\boxed") == 1
        assert told.endswith(tale.solution())
        first, second = (tale.solution(guess).partition("\\boxed")[0] for guess in guesses[:2])
        assert told == first + second + tale.solution()


def test_stubborn_writers_keep_a_reference_and_the_others_end_right(
    tales: list[Tale], tokenizer: Any
) -> None:
    config = PretrainConfig.load(str(RECIPES / "pretrain.yaml"))
    prompter, rng = Prompter(tokenizer, PromptConfig.load(RECIPES / "prompt.yaml")), random.Random(6)
    for share in (0.0, 1.0):
        right = 0
        for tale in tales[:400]:
            changed = dataclasses.replace(config, stubborn_share=share)
            chat, told = tiny_rows.with_references(tale, rng, prompter, changed)
            tried, boxed = (
                [int(n) for n in re.findall(r"(?:^|; )(\d+):", told)],
                int(told.rpartition("{")[2].rstrip("}")),
            )
            assert tried[-1] == boxed
            shown = {int(n) for n in re.findall(r"\\boxed\{(\d+)\}", chat[-1]["content"])}
            assert set(tried[:-1]) <= shown - {tale.answer}
            assert len(tried) <= (1 if share else config.max_tries)
            assert boxed in (shown if share else {tale.answer})
            right += boxed == tale.answer
        assert right < 300 if share else right == 400


def test_careless_workers_slip_as_often_as_they_are_told(tales: list[Tale]) -> None:
    rng, slipped, claims, lines = random.Random(5), 0, 0, 0
    for tale in tales[:4000]:
        guess = tale.wrong_guess(rng)
        assert tale.slipped(guess, rng, 0.0) == tale.solution(guess)
        steps, sign, holds, boxed = lines_of(tale.slipped(guess, rng, 0.3))
        assert holds
        assert boxed == guess
        slipped, claims, lines = slipped + steps.count(False), claims + (sign == "="), lines + len(steps)
    assert 0.2 < slipped / lines < 0.4
    assert 0.1 < claims / 4000 < 0.4  # careless, and sure of it


def test_worked_solutions_are_judged_correct_and_wrong_ones_incorrect(tales: list[Tale]) -> None:
    rng, some = random.Random(2), tales[:400]
    for text, verdict in (
        (lambda t: t.solution(), "correct"),
        (lambda t: t.solution(t.wrong_guess(rng)), "incorrect"),
    ):
        judged = judge_all([(text(t), str(t.answer), "math") for t in some])
        assert {j.verdict for j in judged} == {verdict}


def test_data_is_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 20_000_000


def test_checkpoints_load_with_plain_transformers() -> None:
    sizes = {}
    for name in MODELS:
        model, info = AutoModelForCausalLM.from_pretrained(DATA / name, output_loading_info=True)
        assert isinstance(model, Qwen3ForCausalLM)
        assert model.config.head_dim in (32, 64)  # what vLLM serves on a CPU
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert all(weight.isfinite().all() for weight in model.parameters())
        sizes[name] = model.num_parameters()
    assert sizes["explorer"] < sizes["synthesizer"] < sizes["monolith"]


def test_tokenizer_takes_a_number_as_one_token_and_round_trips(
    tokenizer: Any, sets: dict[str, list[Problem]]
) -> None:
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert len({(DATA / model / name).read_bytes() for model in MODELS}) == 1
    for n in range(LARGEST + 1):
        (alone,) = tokenizer(str(n), add_special_tokens=False)["input_ids"]
        for text in (f"has {n} apples", f"{n}*7=", f"={n};", f"\\boxed{{{n}}}"):
            assert alone in tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = [p.problem for problems in sets.values() for p in problems]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert tokenizer.batch_decode(ids) == texts


def test_no_worked_solution_is_cut(tokenizer: Any, drawn: dict[str, list[Tale]]) -> None:
    """Neither as a completion, nor as one of four references, nor by the budget of the prompt."""
    prompter, rng = Prompter(tokenizer, PromptConfig.load(RECIPES / "prompt.yaml")), random.Random(3)
    tales = [tale for some in drawn.values() for tale in some]
    texts = [[t.solution(), t.solution(t.wrong_guess(rng))] for t in tales]
    lengths = [[len(ids) for ids in tokenizer(row, add_special_tokens=False)["input_ids"]] for row in texts]
    longest = max(map(max, lengths))
    assert 20 < longest <= prompter.config.max_reference_tokens
    for name in ("explore-train", "explore-test", "sft", "grpo", "evaluate"):
        recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
        caps = [
            recipe[k]
            for k in ("max_completion_tokens", "max_target_tokens", "max_completion_length")
            if k in recipe
        ]
        assert caps, name
        assert all(longest < cap for cap in caps), name  # the end of the turn is one more
    stories = [len(ids) for ids in tokenizer([t.text for t in tales], add_special_tokens=False)["input_ids"]]
    by_length = sorted(range(len(tales)), key=lambda i: stories[i] + 4 * max(lengths[i]), reverse=True)
    for i in by_length[:50]:
        text = texts[i][lengths[i].index(max(lengths[i]))]
        assert prompter.synthesizer(tales[i].text, [Reference(text)] * 4).cut_references == 0


def test_pretraining_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = yaml.safe_load((RECIPES / "pretrain.yaml").read_text())
    small = {"layers": 1, "hidden_size": 32, "heads": 2, "kv_heads": 1, "n_plain": 24, "n_reference": 12}
    sizes = {"n_train": 6, "n_validation": 5, "n_test": 4, "n_test_held_out": 3, "n_curve": 8}
    small |= {"batch_size": 4, "reference_batch_size": 2, "steps": 3}
    steps = {"warmup_steps": 1, "eval_every": 2}
    changes = {"out": str(tmp_path / "out"), "models": dict.fromkeys(MODELS, small)}
    (tmp_path / "pretrain.yaml").write_text(yaml.safe_dump({**recipe, **sizes, **steps, **changes}))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(tiny_rows.os, "cpu_count", lambda: 1)  # every worker loads torch anew
    given = ["--config", str(tmp_path / "pretrain.yaml"), "--rows", str(tmp_path / "rows")]
    monkeypatch.setattr(sys, "argv", ["pretrain_tiny.py", *given])
    pretrain_tiny.main()
    for name in MODELS:
        folder = tmp_path / "out" / name
        assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 1
        tokenizer, shipped = (AutoTokenizer.from_pretrained(path) for path in (folder, DATA / name))
        assert tokenizer.chat_template == shipped.chat_template
        assert set(tokenizer.get_vocab()) == set(
            shipped.get_vocab()
        )  # made of the same seed; ties may number it otherwise
        curve = json.loads((folder / "curve.json").read_text())
        assert [row["step"] for row in curve] == [2, 3]
        assert set(curve[0]) >= set(json.loads((DATA / name / "curve.json").read_text())[-1])
    drawn = {name: read(Problem, str(tmp_path / "out" / f"{name}.jsonl")) for name in SIZES}
    assert [len(problems) for problems in drawn.values()] == [6, 5, 4, 3]
    (kept,) = (tmp_path / "rows").iterdir()  # by recipe
    assert {"plain.npz", "reference.npz", "tokenizer"} == {path.name for path in kept.iterdir()}
