"""Not finite in one of several processes: all of them end."""

from pathlib import Path

import pytest
from conftest import options
from launching import launched, need_deepspeed
from test_finite import of_stage, write_keys
from test_train import last_step


@pytest.mark.parametrize("config", ["ddp", "zero2", "zero3", "fsdp2"])
def test_all_processes_end_when_one_is_not_finite(config: str, tiny: str, tmp_path: Path) -> None:
    keys = write_keys(tiny, tmp_path)
    if "zero" in config:
        need_deepspeed()
    keys |= {"use_cpu": config != "fsdp2", "bf16": False}
    run = options(of_stage("sft", keys))
    done = launched(config, "tests/poisoned.py", "sft", "4", *run, timeout_s=120)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert (
        f"{keys['output_dir']}: step 4: the weights are not finite; checkpoint-2 is the last good one"
        in lines[0]
    )
    assert [path.name for path in keys["output_dir"].glob("checkpoint-*")] == ["checkpoint-2"]
    assert not (keys["output_dir"] / "done.json").exists()
    again = launched(config, "scripts/sft.py", *run)
    assert again.returncode == 0, again.stderr[-3000:]
    assert last_step(keys["output_dir"]) == 4
