"""Training with vLLM on the CPU: what GRPO has learnt, the engine generates with, and SFT leaves no engine
behind.
"""

import json
import multiprocessing
import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import bundle_row, options, write_rows
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from a2r_train.data.read import read
from a2r_train.engines import vllm
from a2r_train.models import load_tokenizer
from a2r_train.records import Problem, Synthesis
from a2r_train.train import sft

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("at_root")


def write_bundles(folder: Path) -> str:
    problems = enumerate(read(Problem, str(ROOT / "data/tiny/train.jsonl"))[:8])
    rows = [bundle_row(p, [p.answer, "0"], f"b{i}") for i, p in problems]
    return write_rows(folder / "bundles.jsonl", rows)


def save_adapter(folder: Path) -> str:
    """A LoRA adapter that already changes what the model says, as SFT leaves one."""
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, target_modules="all-linear", init_lora_weights=False, lora_alpha=1, task_type="CAUSAL_LM"
    )
    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(ROOT / "data/tiny/synthesizer"), dtype="float32"), config
    )
    model.save_pretrained(folder)
    load_tokenizer(str(ROOT / "data/tiny/synthesizer")).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What trainer and engine say of each kind of training."""
    folder = tmp_path_factory.mktemp("trained")
    bundles = write_bundles(folder)
    kinds = {
        "full": ["--learning_rate", "1e-3"],
        "lora": ["--learning_rate", "3e-3", "--use_peft", "true"],
        "adapter": ["--learning_rate", "3e-3", "--model_name_or_path", save_adapter(folder / "start")],
    }
    runs = [["--next", bundles, str(folder / kind), *given] for kind, given in kinds.items()]
    script = [sys.executable, "tests/grpo_vllm_run.py", *chain(*runs)]
    script.remove("--next")  # the first run has none before it
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(re.findall(r"vLLM's KV cache holds [\d,]{5,} tokens", done.stderr)) == len(kinds)
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"differences"')]
    return dict(zip(kinds, said, strict=True))


@pytest.mark.parametrize("kind", ["full", "lora", "adapter"])
def test_after_three_updates_trainer_and_engine_agree(kind: str, trained: dict[str, Any]) -> None:
    """TRL logs the largest difference between the log-probability that the engine drew a token with and the
    trainer's.
    """
    found = trained[kind]
    assert found["tied"]
    assert found["dtype"] == "torch.float32"
    assert found["syncs"] >= 4
    assert found["as_trl"] == [True]
    assert found["cached"] >= 128  # whole blocks: a group reads its prompt once
    assert len(found["differences"]) == 4
    assert max(found["differences"]) < 0.01
    assert found["moved"] > 0.1  # an engine that was left behind would differ by about as much


def test_the_engine_that_samples_the_targets_is_gone_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    run_training = sft.run_training

    def counted(trainer: Any) -> None:
        left.append(len(multiprocessing.active_children()))
        run_training(trainer)

    monkeypatch.setattr(sft, "run_training", counted)
    changes = {
        "bundles": write_bundles(tmp_path),
        "output_dir": tmp_path / "sft",
        "target_engine": "vllm",
        "target_samples": 4,
    }
    changes |= {"max_steps": 1, "per_device_train_batch_size": 2, "use_cpu": True}
    assert sft.main(["--config", "recipes/tiny/sft.yaml", *options(changes)]) == 0
    assert left == [0]
    targets = read(Synthesis, str(tmp_path / "sft" / "targets.jsonl"))
    assert {t.verdict for t in targets} == {"correct"}
    assert (tmp_path / "sft" / "model.safetensors").exists()


def test_trainings_that_start_together_have_other_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both choose theirs before either listens; one that is given is kept."""
    monkeypatch.setattr(vllm, "import_vllm", lambda: False)
    ports = set()
    for given in ("", "", "29501"):
        monkeypatch.setenv("MASTER_PORT", given)
        if not given:
            monkeypatch.delenv("MASTER_PORT")
        vllm.prepare_colocate()
        ports.add(os.environ["MASTER_PORT"])
    assert len(ports) == 3
    assert "29501" in ports


def test_the_onednn_line_is_for_the_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.generation import vllm_generation
    from vllm import LLM, _custom_ops

    monkeypatch.setenv("MASTER_PORT", "29501")
    monkeypatch.setattr(vllm_generation, "LLM", LLM)  # the name that TRL calls
    monkeypatch.setattr(_custom_ops, "_supports_onednn", True)
    monkeypatch.setattr(vllm, "import_vllm", lambda: False)
    vllm.prepare_colocate()
    assert vllm_generation.LLM is LLM
    assert _custom_ops._supports_onednn
    monkeypatch.setattr(vllm, "import_vllm", lambda: True)
    vllm.prepare_colocate()
    assert not _custom_ops._supports_onednn
    assert vllm_generation.LLM.keywords["dtype"] == "float32"
