"""A training whose weights are not finite ends at that step and saves nothing of it; no later stage takes
such weights.
"""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from conftest import a2r, options
from poisoned import MAIN, Poison
from safetensors.torch import load_file, save_file
from test_train import bundle, last_step
from transformers import TrainerControl, TrainerState, TrainingArguments, trainer

from a2r_train.config import parse
from a2r_train.errors import RunError
from a2r_train.process import ENDED_BY
from a2r_train.records import Synthesis, write
from a2r_train.train import grpo, sft
from a2r_train.train.callbacks import NotFinite, StopOnNotFinite, not_finite

Keys = dict[str, Any]
REMEDY = "train with a lower learning_rate in another folder, or remove the row that causes it"


@pytest.fixture
def keys(tiny: str, tmp_path: Path) -> Keys:
    return write_keys(tiny, tmp_path)


def write_keys(tiny: str, tmp_path: Path) -> Keys:
    """What both trainers read: four steps on eight bundles, saved after each second."""
    bundles = [bundle(i) for i in range(8)]
    write(bundles, tmp_path / "bundles.jsonl")
    targets = [Synthesis(b.id, 0, r"It is \boxed{5}", "5", "correct", 1, 1, "stop", "m", 0) for b in bundles]
    write(targets, tmp_path / "targets.jsonl")
    return {
        "model_name_or_path": tiny, "bundles": tmp_path / "bundles.jsonl", "output_dir": tmp_path / "out",
        "max_steps": 4,
        "save_steps": 2, "logging_steps": 10, "per_device_train_batch_size": 2, "report_to": "none",
        "use_cpu": True,
        "activation_checkpointing": False, "learning_rate": 1e-3, "disable_tqdm": True,
    }  # fmt: skip


def of_stage(stage: str, keys: Keys) -> Keys:
    own = {"sft": {"targets": Path(keys["bundles"]).with_name("targets.jsonl")}}
    return {**keys, **own.get(stage, {"num_generations": 2, "max_completion_length": 12})}


def poison(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(trainer, "DEFAULT_CALLBACKS", [*trainer.DEFAULT_CALLBACKS, Poison(step)])


def the_line(shown: str) -> str:
    """The one line of an error."""
    assert "Traceback" not in shown
    (line,) = (line for line in shown.splitlines() if line.startswith("error: "))
    return line.removeprefix("error: ")


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_ends_before_it_saves_and_the_same_command_goes_on(
    stage: str, keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = keys["output_dir"], options(of_stage(stage, keys))
    with monkeypatch.context() as patch:
        poison(patch, 4)  # a step that would be saved
        assert MAIN[stage](run) == 1
    assert the_line(capsys.readouterr().err) == (
        f"{folder}: step 4: the weights are not finite; checkpoint-2 is the last "
        "good one, and the same command goes on from "
        f"it; if it happens again, {REMEDY}"
    )
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    assert not [*folder.glob("*.safetensors"), *folder.glob("done.json"), *folder.glob(".saving")]
    written = (folder / "checkpoint-2" / "trainer_state.json").stat().st_mtime_ns
    assert MAIN[stage](run) == 0
    assert (folder / "checkpoint-2" / "trainer_state.json").stat().st_mtime_ns == written
    assert (folder / "done.json").exists()
    assert last_step(folder) == 4
    assert all(tensor.isfinite().all() for tensor in load_file(folder / "model.safetensors").values())


def test_a_training_that_fails_gives_the_signals_back(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook goes on after it, and must still be stopped by Ctrl-C."""
    before = [signal.getsignal(number) for number in ENDED_BY]
    poison(monkeypatch, 2)
    with pytest.raises(RunError, match="step 2: the weights are not finite"):
        sft.train(*parse(sft.ARGUMENTS, options(of_stage("sft", keys))))
    assert [signal.getsignal(number) for number in ENDED_BY] == before


def test_a_learning_rate_far_too_high(keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    keys |= {"learning_rate": 1e38, "use_peft": True, "lora_r": 2}
    assert sft.main(options(of_stage("sft", keys))) == 1
    line = the_line(capsys.readouterr().err)
    assert "the weights are not finite; no checkpoint was saved yet; train with a lower learning_rate" in line
    assert not [*keys["output_dir"].rglob("*.safetensors")]


def test_checkpoints_that_are_not_finite_are_not_gone_on_from(
    keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is the last one taken for the result, as where a run was killed after its last step was saved."""
    folder, run = keys["output_dir"], options(of_stage("sft", keys))
    assert sft.main(run) == 0
    (folder / "done.json").unlink()
    break_one(folder / "checkpoint-4" / "model.safetensors")
    capsys.readouterr()
    assert sft.main(run) == 2
    assert the_line(capsys.readouterr().err) == (
        f"{folder}: the weights of checkpoint-4 are not finite before any step; "
        "remove it, and the same command goes on from an older one"
    )
    assert not (folder / "done.json").exists()
    shutil.rmtree(folder / "checkpoint-4")
    assert sft.main(run) == 0


def break_one(path: Path) -> str:
    weights = load_file(path)
    name = sorted(weights)[-1]
    weights[name].view(-1)[-1] = float("inf")
    save_file(weights, path, metadata={"format": "pt"})
    return name


def test_a_model_that_is_not_finite(keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where it is frozen below an adapter."""
    shutil.copytree(keys["model_name_or_path"], tmp_path / "model")
    break_one(tmp_path / "model" / "model.safetensors")
    keys |= {"model_name_or_path": tmp_path / "model", "use_peft": True, "lora_r": 2}
    assert sft.main(options(of_stage("sft", keys))) == 2
    assert "the weights of the model are not finite before any step; name another" in the_line(
        capsys.readouterr().err
    )


def test_every_stage_refuses_an_adapter_that_is_not_finite(
    keys: Keys, problems: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "adapter"
    made = {**keys, "output_dir": adapter, "use_peft": True, "lora_r": 2, "max_steps": 1}
    assert sft.main(options(of_stage("sft", made))) == 0
    name = break_one(adapter / "adapter_model.safetensors")
    says = (
        f"{adapter / 'adapter_model.safetensors'}: {name} is not finite; name "
        "an earlier checkpoint of it, or train it again"
    )
    capsys.readouterr()
    for stage in MAIN:
        assert MAIN[stage](options({**of_stage(stage, keys), "model_name_or_path": adapter})) == 2
        assert the_line(capsys.readouterr().err) == says
    bundles, out = keys["bundles"], tmp_path / "evaluation"
    for command in (
        ["explore", *options({"problems": problems, "model": adapter, "output_dir": out})],
        [
            "evaluate",
            *options(
                {
                    "bundles": bundles,
                    "base": keys["model_name_or_path"],
                    "sft": adapter,
                    "output_dir": out,
                    "allow_overlap": True,
                }
            ),
        ],
        [
            "solve",
            "What is 1 + 2?",
            "--explorer",
            str(adapter),
            "--synthesizer",
            str(keys["model_name_or_path"]),
        ],
        ["merge", *options({"model": adapter, "output_dir": out})],
    ):
        assert a2r(*command) == 2
        assert capsys.readouterr().err == f"error: {says}\n"
    assert not out.exists()
    (adapter / "adapter_model.safetensors").write_bytes(b"torn")
    assert sft.main(options({**of_stage("sft", keys), "model_name_or_path": adapter})) == 2
    assert f"{adapter / 'adapter_model.safetensors'}: cannot be read (" in the_line(capsys.readouterr().err)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 60_000.0])
def test_one_value_of_many_is_seen(value: float, dtype: torch.dtype) -> None:
    """And large ones are finite: 1000 squares of 60,000 are beyond float16, sum and root."""
    weights = [
        torch.nn.Parameter(torch.full((1000,), 60_000.0, dtype=dtype)),
        torch.nn.Parameter(torch.ones(0)),
    ]
    weights.append(torch.nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False))
    weights[0].data[-1] = value
    assert bool(not_finite(weights)) == (value != 60_000.0)
    assert not not_finite(weights[1:])


@pytest.mark.parametrize(
    ("logs", "fp16", "what"),
    [
        ({"loss": float("nan")}, False, "loss"),
        ({"loss": 1.0, "grad_norm": float("inf")}, False, "grad_norm"),
        ({"loss": 1.0, "grad_norm": float("inf")}, True, ""),
        ({"loss": 1.0, "grad_norm": 2.0, "reward": float("nan")}, False, ""),
    ],
)
def test_logged_values(logs: Keys, fp16: bool, what: str, tmp_path: Path) -> None:
    """With fp16 the gradient overflows now and then, and that step is skipped."""
    args, state = TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(global_step=7)
    args.fp16 = fp16
    guard = StopOnNotFinite(Accelerator(cpu=True))
    if not what:
        guard.on_log(args, state, TrainerControl(), logs=logs)
        return
    with pytest.raises(NotFinite, match=f"step 7: {what} is not finite"):
        guard.on_log(args, state, TrainerControl(), logs=logs)


@pytest.mark.parametrize(("device", "enabled"), [("cuda", False), ("cpu", True)])
@pytest.mark.parametrize(("stage", "trainer_class"), [(sft, "SFTTrainer"), (grpo, "EpochGRPOTrainer")])
def test_no_training_on_a_gpu_attends_by_cudnn(
    stage: Any, trainer_class: str, device: str, enabled: bool, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that its trainer is built."""
    seen: list[bool] = []

    def build(**_: Any) -> None:
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        raise InterruptedError

    configs = parse(stage.ARGUMENTS, options(of_stage(stage.__name__.rpartition(".")[2], keys)))
    monkeypatch.setattr(type(configs[1]), "device", torch.device(device))
    monkeypatch.setattr(stage, trainer_class, build)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        with pytest.raises(InterruptedError):
            stage.train(*configs)
        assert seen == [enabled]
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
