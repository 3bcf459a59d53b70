"""GRPO trained with a shared prefix ends where it ends without: through the real trainers, in one process.
What two do is in test_distributed.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import replay
import torch
from peft import LoraConfig

from a2r_train.train import grpo
from a2r_train.train.shared_prefix import trainer as shared_prefix

FLOAT_ERROR = torch.finfo(torch.float32).eps
LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")


@pytest.fixture(autouse=True)
def always_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        shared_prefix, "MIN_TOKEN_RATIO", shared_prefix.MIN_TOKEN_RATIO
    )  # replay.py lowers it


def trained(model: str, out: Path, shared: bool, **changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights before and after 20 updates."""
    trainer = replay.trainer_of(model, str(out), shared, **changes)
    before = replay.weights(trainer).clone()
    trainer.train()
    assert trainer.state.global_step == 20
    return before, replay.weights(trainer)


def relative_difference(before: torch.Tensor, dense: torch.Tensor, shared: torch.Tensor) -> float:
    """||difference|| / ||movement||, where the movement is far over the error of the arithmetic."""
    movement = (dense - before).norm()
    assert movement >= 100 * FLOAT_ERROR * before.norm()
    return float((shared - dense).norm() / movement)


@pytest.fixture(scope="module")
def dense(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, torch.Tensor]:
    """Before and after 20 updates of one process without sharing, to which all are held that train the
    same.
    """
    return trained(tiny, tmp_path_factory.mktemp("dense"), False)


def test_twenty_updates_end_at_the_dense_weights(
    tiny: str, tmp_path: Path, dense: tuple[torch.Tensor, torch.Tensor]
) -> None:
    assert relative_difference(*dense, trained(tiny, tmp_path, True)[1]) < 1e-2


@pytest.mark.parametrize(
    "changes",
    [
        {
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "activation_checkpointing": True,
        },
        {"peft_config": LORA, "loss_type": "grpo"},
    ],
    ids=["accumulation and checkpointing", "lora"],
)
def test_twenty_updates_of_another_kind_do_so_too(tiny: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    before, dense = trained(tiny, tmp_path, False, **changes)
    _, shared = trained(tiny, tmp_path, True, **changes)
    assert relative_difference(before, dense, shared) < 1e-2


def test_a_wrong_mask_ends_elsewhere(
    tiny: str,
    tmp_path: Path,
    dense: tuple[torch.Tensor, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Completions that see those before them, as if all were one: the tests above would notice."""
    layout = shared_prefix._groups
    monkeypatch.setattr(
        shared_prefix,
        "_groups",
        lambda prefixes, completions, to: layout(prefixes, [[sum(c)] for c in completions], to),
    )
    _, shared = trained(tiny, tmp_path, True)
    assert relative_difference(*dense, shared) > 1e-2


def test_the_switch_of_a_recipe(speaking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`shared_prefix: true` trains, logs what it saved, and leaves a checkpoint like any other."""
    from test_train import bundle

    from a2r_train.records import write

    write([bundle(i) for i in range(4)], tmp_path / "bundles.jsonl")
    given = [
        "--bundles",
        str(tmp_path / "bundles.jsonl"),
        "--model_name_or_path",
        speaking,
        "--shared_prefix",
        "true",
    ]
    quick = [
        "--max_steps",
        "2",
        "--num_generations",
        "4",
        "--max_completion_length",
        "12",
        "--save_steps",
        "1",
        "--report_to",
    ]
    more = [
        "none",
        "--logging_steps",
        "1",
        "--use_cpu",
        "true",
        "--learning_rate",
        "1e-3",
        "--activation_checkpointing",
        "false",
    ]
    argv = [*given, *quick, *more]
    halves = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"]
    assert grpo.main([*argv, "--output_dir", str(tmp_path / "refused"), *halves]) == 2
    error = capsys.readouterr().err
    assert (
        "shared_prefix: a micro-batch must hold whole groups: make per_device_train_batch_size a multiple of"
        in error
    )
    assert error.count("\n") == 1
    assert (
        grpo.main([*argv, "--output_dir", str(tmp_path / "grpo"), "--per_device_train_batch_size", "8"]) == 0
    )
    log = json.loads((tmp_path / "grpo" / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in log if "loss" in entry]
    assert [entry["shared_prefix/token_ratio"] > 2 for entry in steps] == [True, True]
    assert "attn" not in (tmp_path / "grpo" / "config.json").read_text()
