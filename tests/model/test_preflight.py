"""`a2r check`: every check seen green and red, and no training starts on red."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CHAT_TEMPLATE, a2r, bundle_row, files_of, options, save_tiny, write_rows

from a2r_train.config import parse
from a2r_train.records import Problem
from a2r_train.train import grpo, preflight, sft
from a2r_train.train.preflight import Check

KEYS = {
    "max_completion_length": 16, "num_generations": 2, "per_device_train_batch_size": 4, "max_steps": 8,
    "save_steps": 4,
    "use_cpu": True, "report_to": "none",
}  # fmt: skip
Checks = Callable[..., dict[str, list[Check]]]


def bundles(
    answer: str = "5",
    verifier: str = "math",
    right: int = 1,
    texts: Sequence[str] = (r"\boxed{5}", r"\boxed{7}"),
    tokens: Sequence[int] = (9, 40),
) -> list[dict[str, Any]]:
    """Three bundles of two references, of which the first so many are right."""
    gold = "5" if ":" in verifier else answer  # an own verifier may have a gold that is no answer
    problem = Problem("p", "How many apples are left?", answer, verifier)
    verdicts = ["correct"] * right + ["incorrect"] * (2 - right)
    answers = [gold] * right + ["7"] * (2 - right)
    more: dict[str, Any] = {"texts": texts, "verdicts": verdicts, "tokens": [*tokens]}
    return [bundle_row(replace(problem, id=f"p{i}"), answers, f"b{i}", **more) for i in range(3)]


@pytest.fixture
def checks(tiny: str, tmp_path: Path) -> Checks:
    """The preflight of GRPO by name, over bundles and recipe keys that differ from the good ones as given."""

    def run(bundle: dict[str, Any] | None = None, model: str = tiny, **keys: Any) -> dict[str, list[Check]]:
        rows = write_rows(tmp_path / "bundles.jsonl", bundles(**(bundle or {})))
        named = {"bundles": rows, "model_name_or_path": model}
        given = {**named, "output_dir": tmp_path / "out", **KEYS, **keys}
        found: dict[str, list[Check]] = {}
        for check in grpo.checks(*parse(grpo.ARGUMENTS, options(given))):
            found.setdefault(check.name, []).append(check)
        assert not (tmp_path / "out").exists()
        return found

    return run


def red(found: dict[str, list[Check]]) -> dict[str, str]:
    return {name: check.detail for name, checks in found.items() for check in checks if not check.passed}


@pytest.mark.parametrize(
    ("answer", "verifier"),
    [
        ("5", "math"),
        (r"\frac{1}{2}", "math"),
        ("12", "math_last_number"),
        ("B", "multiple_choice"),
        ("B) Lamb", "multiple_choice"),
        ("(a)", "multiple_choice"),
        ("New York", "exact"),
    ],
)
def test_green_whatever_the_verifier(answer: str, verifier: str, checks: Checks) -> None:
    found = checks({"answer": answer, "verifier": verifier}, max_completion_length=40)
    assert not red(found)
    assert {name: len(several) for name, several in found.items()} == {
        "reward": 4, "length": 1, "end of turn": 1, "chat template": 1, "disk": 1,
        "learning signal": 1, "repeats": 1, "save_steps": 1, "batches": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("batch", "steps", "says"),
    [
        (2, 3, ""),
        (4, 1, "yellow 1 of 3 bundles are left out of each epoch, because a batch takes 2"),
        (
            8,
            0,
            "red a generation takes 4 bundles, but there are only 3, so nothing would be trained; lower per_",
        ),
    ],
)
def test_bundles_are_counted_as_the_sampler_takes_them(
    batch: int, steps: int, says: str, checks: Checks, tmp_path: Path
) -> None:
    found = checks(per_device_train_batch_size=batch, max_steps=-1, num_train_epochs=1)
    one = "".join(f"{check.color} {check.detail}" for check in found.get("batches", []))
    assert one.startswith(says)
    assert bool(one) == bool(says)
    groups = steps * batch // 2
    assert found["repeats"][0].detail.startswith(f"{groups} groups of 3 bundles")
    assert not (tmp_path / "out").exists()


def test_few_left_out_of_many_are_no_warning() -> None:
    args: Any = SimpleNamespace(dataloader_drop_last=True, per_device_train_batch_size=4, world_size=2)
    assert [check.color for check in preflight.batches(args, 81, "targets")] == ["green"]
    assert [check.color for check in preflight.batches(args, 12, "targets")] == ["yellow"]
    assert [check.color for check in preflight.batches(args, 7, "targets")] == ["red"]
    assert preflight.batches(args, 16, "targets") == []


def test_green_for_a_model_whose_template_opens_its_thinking(checks: Checks, thinking_tiny: str) -> None:
    found = checks(model=thinking_tiny)
    assert not red(found)
    assert "<|im_start|>assistant" in found["chat template"][0].detail


@pytest.mark.parametrize(
    "shown", ["{{ strftime_now('%d %b %Y') }}", "{{ date_string if date_string is defined else 'some day' }}"]
)
def test_a_template_that_shows_a_date(shown: str, checks: Checks, tmp_path: Path) -> None:
    """As that of Llama 3.2; TRL renders the prompts again, and must show the same day."""
    model = save_tiny(tmp_path / "model", seed=0, chat_template=f"{shown}\n{CHAT_TEMPLATE}")
    assert red(checks(model=model)) == {}
    keys = {**KEYS, "bundles": tmp_path / "bundles.jsonl", "model_name_or_path": model, "output_dir": "x"}
    data, _, arguments = parse(grpo.ARGUMENTS, options(keys))
    loaded = grpo.load_bundles(data, arguments)
    chat, tokenizer = loaded.sample[0].chat, loaded.prompter.tokenizer
    trls = tokenizer.apply_chat_template(
        list(chat),
        chat_template=loaded.prompter.chat_template,
        tokenize=False,
        add_generation_prompt=True,
        **loaded.template_arguments(),
    )
    assert trls == loaded.prompter.text(chat)
    assert trls.startswith("01 Jan 2025\n")


def test_a_gold_answer_that_no_completion_can_give(checks: Checks) -> None:
    says = red(checks({"answer": "a}b", "verifier": "exact"}))["reward"]
    assert says == "the gold answer of bundle 'b0' (gold 'a}b') does not earn 1"


@pytest.mark.parametrize("pattern", ["Answer: (.*)", "<answer>(.*?)</answer>"])
def test_answers_stand_where_the_prompt_reads_them(pattern: str, checks: Checks, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text(f"answer_pattern: {pattern!r}\n")
    found = checks({"texts": ("Answer: 5 <answer>5</answer>", "no")}, prompt=prompt)
    assert red(found) == {}
    assert any(one.detail == "the gold answer earns 1, in 1 different cases" for one in found["reward"])


def test_a_pattern_for_which_nothing_can_be_written_is_not_green(checks: Checks, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("answer_pattern: '[Aa]nswer: (.*)'\n")
    found = checks(prompt=prompt)
    assert red(found) == {}
    assert [one.detail for one in found["reward"] if one.yellow] == [
        "the gold answer was not tried: no text could be made for the prompt's answer_pattern; check that "
        "the first steps earn a reward"
    ]


def test_a_reward_that_pays_for_anything(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        preflight.VerifiableReward, "__call__", lambda _, completions, **__: [1.0] * len(completions)
    )
    says = [check.detail for check in checks()["reward"] if not check.passed]
    kinds = ("an empty completion", "a truncated answer", "a wrong answer")
    assert says == [f"{kind} of bundle 'b0' (gold '5') does not earn 0" for kind in kinds]


@pytest.mark.parametrize(
    ("gold", "right", "passes", "tried"), [("[3-6]", 1, True, 1), ("[6-9]", 1, False, 1), ("x", 0, True, 0)]
)
def test_an_own_verifier_is_tried_with_a_correct_reference(
    gold: str, right: int, passes: bool, tried: int, checks: Checks
) -> None:
    """Its gold is a pattern, which is no answer itself."""
    found = checks({"answer": gold, "verifier": "fnmatch:fnmatch", "right": right})["reward"]
    assert [check.passed for check in found] == [passes, True, True, True]
    if passes and tried:
        assert found[0].detail.endswith(f"earns 1, in {tried} different cases")
        assert "a wrong answer was not tried: only your own verifier knows what is wrong" in found[3].detail
    elif passes:
        assert all("was not tried: your own verifier calls no reference right" in one.detail for one in found)


def test_a_prompt_and_completion_over_the_context(checks: Checks) -> None:
    says = red(checks(max_completion_length=4000))["length"]
    assert "is over the model's context of 4096; lower max_prompt_tokens or the completion" in says


def test_a_completion_too_short_for_the_answer(checks: Checks) -> None:
    assert (
        "a completion of 4 tokens cannot hold a gold answer of 9"
        in red(checks(max_completion_length=4))["length"]
    )
    assert checks({"right": 2})["length"][0].detail.endswith(
        "50% of the correct references are longer than such a completion"
    )


def test_references_that_were_cut_are_counted(checks: Checks) -> None:
    long = {"texts": ["so " * 3000 + r"\boxed{5}", r"\boxed{7}"]}
    assert checks(long, max_completion_length=40)["length"][0].detail.endswith(
        "; 3 references were cut to fit the prompt"
    )
    assert "cut" not in checks(max_completion_length=40)["length"][0].detail


@pytest.mark.parametrize(
    ("template", "passes"),
    [
        (CHAT_TEMPLATE, True),
        (CHAT_TEMPLATE.partition("{% if add")[0], False),
        (
            CHAT_TEMPLATE.replace(
                "{% if add_generation_prompt %}<|im_start|>assistant", "{% if true %}<|im_start|>tool"
            ),
            False,
        ),
        (
            "{% for m in messages %}{{ '[INST] ' + m.content + ' [/INST] ' if "
            "m.role == 'user' else m.content }}{% endfor %}",
            True,
        ),
    ],
    ids=["ChatML", "no generation prompt", "another role's turn", "Llama 2 needs none"],
)
def test_chat_templates(template: str, passes: bool, checks: Checks, tiny: str, tmp_path: Path) -> None:
    folder = copytree(tiny, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    assert [check.passed for check in checks(model=str(folder))["chat template"]] == [passes]


@pytest.mark.parametrize(
    ("right", "group", "share"), [(1, 2, "50%"), (1, 4, "12%"), (0, 4, "100%"), (2, 4, "100%")]
)
def test_share_of_groups_without_signal(right: int, group: int, share: str, checks: Checks) -> None:
    found = checks({"right": right}, num_generations=group)
    (line,) = found["learning signal"]
    assert line.detail.startswith("estimated from the references, not measured")
    assert line.color == ("red" if share == "100%" else "yellow")  # an estimate is never green
    assert f"{share} of the groups of {group} have equal rewards" in line.detail
    assert ("learning signal" in red(found)) == (share == "100%")


@pytest.mark.parametrize(
    ("right", "color", "share"), [("101", "yellow", "56%"), ("000", "red", "100%"), ("111", "red", "100%")]
)
def test_a_single_reference_does_not_tell_how_often_its_problem_is_solved(
    right: str, color: str, share: str, tiny: str, tmp_path: Path
) -> None:
    """With k 1, each problem is solved always or never by its own references, and no training would begin."""
    rows = [
        bundle_row(
            Problem(f"p{at}", f"What is {at} + 2?", "5"),
            ["5" if one == "1" else "7"],
            f"b{at}",
            texts=["\\boxed{5}" if one == "1" else "\\boxed{7}"],
            verdicts=["correct" if one == "1" else "incorrect"],
        )
        for at, one in enumerate(right)
    ]
    keys = {"bundles": write_rows(tmp_path / "bundles.jsonl", rows), "model_name_or_path": tiny}
    found = grpo.checks(*parse(grpo.ARGUMENTS, options({**keys, "output_dir": tmp_path / "out", **KEYS})))
    (line,) = [check for check in found if check.name == "learning signal"]
    assert line.color == color
    assert f"{share} of the groups of 2 have equal rewards" in line.detail


def test_no_signal_is_estimated_where_no_references_are_shown(checks: Checks) -> None:
    assert "learning signal" not in checks(plain_share=1.0)
    assert "learning signal" not in checks({"right": 0}, plain_share=1.0)


def test_lines_that_check_nothing_do_not_look_green(checks: Checks) -> None:
    (unsaved,) = checks(save_strategy="no")["save_steps"]
    assert (unsaved.color, unsaved.detail) == (
        "yellow",
        "save_strategy no: a run that is killed starts over",
    )
    (by_epoch,) = checks(save_strategy="epoch", num_iterations=2)["save_steps"]
    assert by_epoch.color == "yellow"
    assert checks(save_strategy="epoch")["save_steps"][0].color == "green"


def test_lengths_that_nobody_counted_are_not_said_to_be_short(checks: Checks) -> None:
    for tokens, said in (([9, 40], True), ([0, 0], False)):
        detail = checks({"tokens": tokens}, max_completion_length=40)["length"][0].detail
        assert ("of the correct references are longer" in detail) == said


@pytest.mark.parametrize(
    ("keys", "passes"),
    [
        ({"num_iterations": 2, "save_steps": 4}, True),
        ({"num_iterations": 2, "save_steps": 3}, False),
        ({"num_iterations": 2, "save_steps": 3, "save_strategy": "no"}, True),
        ({"steps_per_generation": 4, "save_steps": 2}, False),
        ({"steps_per_generation": 4, "gradient_accumulation_steps": 2, "save_steps": 2}, True),
        ({"gradient_accumulation_steps": 4, "save_steps": 1}, True),
        ({"save_steps": 0.25}, True),  # a share of all steps
        ({"num_iterations": 2, "save_steps": 0.25}, False),
    ],
)
def test_save_steps_end_a_generation(keys: dict[str, Any], passes: bool, checks: Checks) -> None:
    assert ("save_steps" not in red(checks(**keys))) == passes


@pytest.mark.parametrize(
    ("steps", "passes"),
    [
        (6, "12 groups of 3 bundles: each is trained on 4.0 times"),
        (7, "14 groups of 3 bundles: each is trained on 4.7 times; bundle more"),
    ],
)
def test_bundles_that_come_too_often(steps: int, passes: str, checks: Checks) -> None:
    (found,) = checks(max_steps=steps, save_steps=1)["repeats"]
    assert found.detail.startswith(passes)
    assert found.color == ("green" if steps == 6 else "yellow")


def test_disk_room_for_what_is_kept(checks: Checks, monkeypatch: pytest.MonkeyPatch, tiny: str) -> None:
    weights = (Path(tiny) / "model.safetensors").stat().st_size // 1000 * 1000
    free = SimpleNamespace(free=0)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: free)
    for keys, copies in (
        ({}, 1 + 2 * 3),
        ({"save_strategy": "no", "use_peft": True, "lora_r": 1}, 0.5),
        ({"save_only_model": True}, 3),
    ):
        free.free = int(weights * copies * 0.9) if copies > 1 else 0
        assert "or make room" in red(checks(**keys))["disk"]
        free.free = int(weights * copies * 1.1)
        assert "disk" not in red(checks(**keys))
    free.free = weights * 5
    assert "disk" not in red(checks(save_total_limit=1, save_steps=8))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # a checkpoint of 18 bytes a parameter
    free.free = int(weights * 5.4)
    assert "or make room" in red(checks(save_total_limit=1, save_steps=8))["disk"]
    free.free = int(weights * 5.6)
    assert "disk" not in red(checks(save_total_limit=1, save_steps=8))


def recipe(tmp_path: Path, tiny: str, name: str, **keys: Any) -> Path:
    named = {"bundles": write_rows(tmp_path / "bundles.jsonl", bundles()), "model_name_or_path": tiny}
    path = tmp_path / f"{name}.yaml"
    path.write_text(
        json.dumps(
            {**named, "output_dir": str(tmp_path / "out"), "use_cpu": True, "report_to": "none", **keys}
        )
    )
    return path


@pytest.mark.parametrize(
    ("name", "keys", "status"),
    [
        ("grpo", KEYS, 0),
        ("grpo-other", {**KEYS, "num_iterations": 3}, 2),
        ("sft", {}, 0),
        ("sft", {"max_target_tokens": 4}, 2),
    ],
)
def test_check_prints_one_line_each_and_its_status(
    name: str,
    keys: dict[str, Any],
    status: int,
    tmp_path: Path,
    tiny: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = recipe(tmp_path, tiny, name, **keys)
    before = files_of(tmp_path)
    assert a2r("check", "--config", str(path)) == status
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (12 if "grpo" in name else 9)
    assert sum(line.startswith("red ") for line in lines) == (status == 2)
    yellow = [line.split(":")[0].split(maxsplit=1)[1] for line in lines if line.startswith("yellow ")]
    assert yellow == (
        ["batches", "learning signal", "repeats"] if "grpo" in name else ["targets"]
    )  # of so few bundles
    assert sum(line.startswith("green ") for line in lines) == len(lines) - len(yellow) - (status == 2)
    assert files_of(tmp_path) == before


def test_check_of_another_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert a2r("check", "--config", str(tmp_path / "bundle.yaml")) == 2
    assert "expected a recipe whose name begins with sft or grpo" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "keys"), [(grpo, {**KEYS, "num_iterations": 3}), (sft, {"max_target_tokens": 4})]
)
def test_training_does_not_start_on_red(
    stage: Any, keys: dict[str, Any], tmp_path: Path, tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, tiny, "recipe", **keys)
    before = files_of(tmp_path)
    assert stage.main(["--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: preflight: ")
    assert error.count("\n") == 1
    assert files_of(tmp_path) == before
