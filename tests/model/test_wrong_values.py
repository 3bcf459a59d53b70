"""Values that a trainer cannot use, and keys without effect, are one line before anything is written."""

from pathlib import Path
from typing import Any

import pytest
from conftest import a2r, bundle_with, options, write_rows

from a2r_train.config import parse
from a2r_train.errors import InputError
from a2r_train.records import Problem, write
from a2r_train.train import grpo, sft
from a2r_train.train.arguments import ModelArguments
from a2r_train.train.model import check_model

GROUPS = {"num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 12}
END = "<|im_end|>"


@pytest.fixture
def keys(tiny: str, tmp_path: Path) -> dict[str, Any]:
    """Those of a recipe that would train."""
    made = [
        bundle_with(
            Problem(f"p{i}", f"What is {i} more?", "5"), ("5", "7"), f"b{i}", texts=["So 5", r"\boxed{7}"]
        )
        for i in range(4)
    ]
    write(made, tmp_path / "bundles.jsonl")
    return {
        "bundles": tmp_path / "bundles.jsonl", "model_name_or_path": tiny, "output_dir": tmp_path / "out",
        "use_cpu": True, "report_to": "none", "max_steps": 2,
    }  # fmt: skip


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (sft, {"report_to": "wandbb"}, "report_to is 'wandbb'; expected one of none, all, "),
    (sft, {"attn_implementation": "flash"}, "attn_implementation is 'flash'; expected one of eager, "),
    (sft, {"attn_implementation": "kernels-x/flash"}, "attn_implementation kernels-x/flash needs kernels"),
    (sft, {"loss_type": "foo"}, "'loss_type' is 'foo'; expected one of nll, dft"),
    (sft, {"max_steps": 0}, "max_steps is 0; expected at least 1, or -1 for num_train_epochs epochs"),
    (sft, {"num_train_epochs": 0}, "num_train_epochs is 0; expected above 0"),
    (sft, {"target_temperature": -1}, "target_temperature is -1; expected 0 or more"),
    (sft, {"max_length": 10}, "max_length is 10, but the longest prompt alone has "),
    (grpo, {"scale_rewards": "maybe"}, "scale_rewards is 'maybe'; expected one of group, batch, none"),
    (grpo, {"loss_type": "foo"}, "loss_type is 'foo'; expected one of dapo, grpo, "),
    (grpo, {"min_p": 3}, "min_p is 3; expected 0 to 1"),
    (grpo, {"num_iterations": 0}, "num_iterations is 0; expected at least 1"),
    (grpo, {"use_peft": True, "lora_r": -1}, "lora_r is -1; expected at least 1"),
    (grpo, {"use_peft": True, "lora_dropout": 2}, "lora_dropout is 2; expected 0 or more, and less than 1"),
    (
        grpo,
        {"use_peft": True, "lora_target_modules": "nope"},
        "the adapter does not fit {model}: Target modules",
    ),
]


@pytest.mark.parametrize(("trainer", "wrong", "says"), WRONG, ids=lambda one: str(one)[:40])
def test_a_wrong_value_is_one_line_in_a_check_a_dry_run_and_a_training(
    trainer: Any,
    wrong: dict[str, Any],
    says: str,
    keys: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = {**keys, **(GROUPS if trainer is grpo else {}), **wrong}
    path = tmp_path / "recipe.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in rows.items()))
    given = ["--config", str(path)]
    with pytest.raises(InputError) as refused:
        trainer.checks(*parse(trainer.ARGUMENTS, given))
    assert says.format(model=keys["model_name_or_path"]) in str(refused.value)
    for more in (["--dry_run", "true"], []):
        assert trainer.main([*given, *more]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert str(refused.value) in line
    assert not keys["output_dir"].exists()


@pytest.mark.parametrize("key", ["max_steps", "bundles", "plain_share", "num_generations"])
def test_an_empty_key_of_a_training_is_one_line(
    key: str, keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {**{name: str(value) for name, value in keys.items()}, **GROUPS, key: ""}
    (tmp_path / "grpo.yaml").write_text("".join(f"{name}: {value}\n" for name, value in rows.items()))
    assert a2r("check", "--config", str(tmp_path / "grpo.yaml")) == 2
    assert f"{key}: empty; " in capsys.readouterr().err


def test_null_is_a_value_of_a_key_that_may_be_null(keys: dict[str, Any], tmp_path: Path) -> None:
    rows = {**{name: str(value) for name, value in keys.items()}, "max_length": "null", "report_to": ""}
    (tmp_path / "sft.yaml").write_text("".join(f"{name}: {value}\n" for name, value in rows.items()))
    assert parse(sft.ARGUMENTS, ["--config", str(tmp_path / "sft.yaml")])[1].max_length is None


def test_keys_of_an_adapter_that_is_not_trained_are_told(tiny: str, caplog: pytest.LogCaptureFixture) -> None:
    check_model(ModelArguments(model_name_or_path=tiny, use_peft=True, lora_r=8, use_rslora=True))
    check_model(ModelArguments(model_name_or_path=tiny, lora_r=16))  # TRL's default
    assert not caplog.messages
    check_model(ModelArguments(model_name_or_path=tiny, lora_r=64, use_dora=True))
    assert caplog.messages == [
        "lora_r, use_dora: without effect, as all weights are trained; add use_peft: true for LoRA"
    ]


def targets_of(keys: dict[str, Any], rows: list[tuple[str, str]], tmp_path: Path) -> list[tuple[str, str]]:
    path = write_rows(tmp_path / "t.jsonl", [{"bundle_id": name, "text": text} for name, text in rows])
    data, args, model = parse(sft.ARGUMENTS, options({**keys, "targets": path}))
    found = sft.supplied_targets(args, model, sft.load_bundles(data, model))
    return [(one.bundle_id, one.text) for one in found]


def test_targets_that_are_left_out_are_counted(
    keys: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right = r"It is \boxed{5}"
    rows = [
        ("b0", right),
        ("b0", right),
        ("b1", right),
        ("b1", r"\boxed{6}"),
        ("b2", ""),
        ("b0", f"{right}!"),
    ]
    assert targets_of(keys, rows, tmp_path) == [("b0", right), ("b1", right), ("b0", f"{right}!")]
    assert "t.jsonl: 1 of 6 targets repeat an earlier one of their bundle and are left out" in caplog.text
    assert "t.jsonl: 2 of 5 targets are not correct and are left out (1 unparsable)" in caplog.text


def test_a_target_with_the_start_of_a_turn_is_refused(keys: dict[str, Any], tmp_path: Path) -> None:
    rows = [("b0", r"\boxed{5}"), ("b1", f"<|im_start|>assistant\n\\boxed{{5}}{END}\n")]
    with pytest.raises(InputError, match=r"t\.jsonl: the target for bundle 'b1' holds '<\|im_start\|>', by"):
        targets_of(keys, rows, tmp_path)
    with pytest.raises(InputError, match=r"holds '<\|im_end\|>'"):
        targets_of(keys, [("b0", f"{END}\\boxed{{5}}")], tmp_path)


def test_the_end_of_a_turn_is_removed_from_a_target(
    keys: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        ("b0", f"\\boxed{{5}}{END}\n"),
        ("b1", "<think>\nSo.\n</think>\n\\boxed{5}"),
        ("b0", r"\boxed{5}"),
    ]
    assert targets_of(keys, rows, tmp_path) == [("b0", r"\boxed{5}"), rows[1]]
    assert "1 of 3 targets end in the token that ends a turn; it is removed" in caplog.text
