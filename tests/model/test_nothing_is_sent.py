"""The tested sets keep to pyproject.toml, the scheduled run does not, and nothing is sent elsewhere by
default.
"""

from pathlib import Path
from typing import Any

import pytest

from a2r_train.train import grpo, sft


@pytest.mark.parametrize("stage", [sft.SynthesizerSFTConfig, grpo.SynthesizerGRPOConfig])
def test_nothing_is_reported_or_pushed_by_default(stage: Any, tmp_path: Path) -> None:
    args = stage(str(tmp_path), use_cpu=True)
    assert args.report_to == []
    assert args.push_to_hub is False
    for service in ("trackio", "wandb", "tensorboard"):
        assert stage(str(tmp_path), use_cpu=True, report_to=service).report_to == [service]
