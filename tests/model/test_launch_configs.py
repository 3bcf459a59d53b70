"""The shipped configs of accelerate, as the launcher reads them."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from launching import ROOT
from transformers.trainer_pt_utils import AcceleratorConfig

from a2r_train.train.model import shard_precisely

CONFIGS = sorted(path.stem for path in (ROOT / "accelerate_configs").glob("*.yaml"))


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_load_and_pin_no_process_count_but_by_name(name: str) -> None:
    path = f"accelerate_configs/{name}.yaml"
    config = load_config_from_file(path)  # refuses a key that it does not know
    processes = re.fullmatch(r"cpu(\d+)", name)
    assert config.num_processes == (int(processes[1]) if processes else -1)
    assert config.num_machines == (2 if name.startswith("two_") else 1)
    assert f"--config_file {path}" in (ROOT / path).read_text()
    assert config.mixed_precision == "no"  # the recipe's


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """What accelerate makes of a config in each of the processes that it starts."""

    def build(name: str) -> Any:
        given = [
            "--config_file",
            f"accelerate_configs/{name}.yaml",
            "--num_processes",
            "8",
            "--main_process_ip",
            "a",
            "x.py",
        ]
        args, _, _ = _validate_launch_command(launch_command_parser().parse_args(given))
        assert args.num_processes == 8
        if args.use_deepspeed:
            pytest.importorskip("deepspeed")
            args.deepspeed_fields_from_accelerate_config = ""
        monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda _: False)  # nothing is launched
        environment = (
            prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
        )
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        return (
            DeepSpeedPlugin()
            if args.use_deepspeed
            else FullyShardedDataParallelPlugin()
            if args.use_fsdp
            else None
        )

    return build


@pytest.mark.parametrize(
    ("name", "stage"), [("zero2", 2), ("zero3", 3), ("zero3_offload", 3), ("two_nodes", 3)]
)
def test_deepspeed_takes_the_config(name: str, stage: int, plugin: Callable[[str], Any]) -> None:
    config = plugin(name).deepspeed_config
    zero = config["zero_optimization"]
    assert zero["stage"] == stage
    assert {zero[f"offload_{part}"]["device"] for part in ("optimizer", "param")} == {
        "cpu" if "offload" in name else "none"
    }
    assert stage == 2 or zero["stage3_gather_16bit_weights_on_model_save"]
    # what the recipe sets
    assert {config["gradient_accumulation_steps"], config["gradient_clipping"]} == {"auto"}


def test_fsdp_takes_the_config(plugin: Callable[[str], Any]) -> None:
    found = plugin("fsdp2")
    assert found.fsdp_version == 2
    assert found.reshard_after_forward is True
    assert "FULL" in str(found.state_dict_type)
    assert plugin("ddp") is plugin("cpu2") is None


@pytest.mark.parametrize(
    ("name", "bf16", "precise"), [("fsdp2", True, True), ("fsdp2", False, False), ("ddp", True, False)]
)
def test_fsdp_rounds_no_output(name: str, bf16: bool, precise: bool, plugin: Callable[[str], Any]) -> None:
    plugin(name)  # sets the environment of a process
    args: Any = SimpleNamespace(bf16=bf16, fsdp_plugin_args=None, accelerator_config=AcceleratorConfig())
    shard_precisely(args)
    shares = {"sync_each_batch": True} if name == "fsdp2" else None  # of the gradients, also of a micro-batch
    assert args.accelerator_config.gradient_accumulation_kwargs == shares
    assert bool(args.fsdp_plugin_args) == precise
    if precise:
        found = FullyShardedDataParallelPlugin(**args.fsdp_plugin_args)
        found.set_mixed_precision("bf16")  # what accelerate does then, and would have set every dtype by
        policy = found.mixed_precision_policy
        assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (
            torch.bfloat16,
            torch.float32,
            None,
        )
        assert (found.fsdp_version, found.reshard_after_forward) == (2, True)
