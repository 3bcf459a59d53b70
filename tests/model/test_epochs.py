"""A training of several epochs that goes on in a later one ends as the undisturbed training does, to the
byte.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import bundle_with, options
from trl.trainer.utils import RepeatSampler

from a2r_train.data.read import read
from a2r_train.records import CORRECT, INCORRECT, Problem, Synthesis, write
from a2r_train.train import grpo, sft
from a2r_train.train.rewards import VerifiableReward
from a2r_train.train.sampling import EpochSampler

ROOT = Path(__file__).parents[2]
# Two steps an epoch.
EPOCHS = {
    "model_name_or_path": "data/tiny/synthesizer", "prompt": "recipes/tiny/prompt.yaml", "use_cpu": True,
    "num_train_epochs": 3,
    "max_steps": 6,
    "save_steps": 1, "save_total_limit": 10, "logging_steps": 1, "warmup_steps": 0, "learning_rate": 0.001,
}  # fmt: skip
GRPO = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "num_generations": 4,
    "max_completion_length": 24,
}
SFT = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write_files(tmp_path)


def write_files(folder: Path) -> Path:
    """Bundles and targets of sixteen problems."""
    problems = read(Problem, str(ROOT / "data/tiny/train.jsonl"))[:16]
    write([bundle_with(p, [p.answer, "0"]) for p in problems], folder / "bundles.jsonl")
    write(
        [
            Synthesis(p.id, 0, rf"\boxed{{{p.answer}}}", p.answer, "correct", 1, 1, "stop", "m", 0)
            for p in problems
        ],
        folder / "targets.jsonl",
    )
    return folder


def logged(out: Path) -> list[dict[str, float]]:
    """What each step logged, without its times."""
    rows = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return [
        {key: row[key] for key in row if key in ("loss", "reward", "grad_norm")}
        for row in rows
        if "loss" in row
    ]


class Parity(VerifiableReward):
    """Differs within groups, whatever so tiny a model writes."""

    def __call__(self, completions: Any, log_extra: Any, **_: Any) -> list[float]:  # type: ignore[override]
        odd = [len(completion[0]["content"]) % 2 for completion in completions]
        log_extra("verdict", [CORRECT if one else INCORRECT for one in odd])
        return [float(one) for one in odd]


def differences(train: Callable[[], object], out: Path) -> list[str]:
    """What a training ends with otherwise, if it goes on from the middle of the second epoch, or from its
    end.
    """
    train()
    whole, steps = (out / "model.safetensors").read_bytes(), logged(out)
    assert len(steps) == 6
    assert len({row["grad_norm"] for row in steps}) > 3
    found = []
    for done in (4, 3):
        for name in ("model.safetensors", "trainer_state.json", "done.json"):
            (out / name).unlink()
        for step in range(done + 1, 7):
            shutil.rmtree(out / f"checkpoint-{step}")
        train()
        found += [f"from step {done}: the steps"] if logged(out) != steps else []
        found += (
            [f"from step {done}: the weights"] if (out / "model.safetensors").read_bytes() != whole else []
        )
    return found


def test_each_epoch_has_an_order_of_its_own_and_the_first_is_that_of_trl() -> None:
    theirs = RepeatSampler(range(8), mini_repeat_count=2, batch_size=4, seed=3)
    epoch = 0
    ours = EpochSampler(theirs, lambda: epoch)
    orders = []
    for epoch in (0, 1, 2, 1):  # noqa: B007 (the sampler reads it)
        orders.append(list(ours))
    assert orders[0] == list(theirs)
    assert orders[1] == orders[3]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert all(sorted(order) == sorted([*range(8)] * 2) for order in orders)


@pytest.mark.parametrize(("stage", "main", "more"), [
    ("grpo", grpo.main, {**GRPO, "shared_prefix": True}),
    ("grpo", grpo.main, {**GRPO, "shared_prefix": False}),
    ("grpo", grpo.main, {**GRPO, "per_device_train_batch_size": 4, "oversampling_factor": 2}),
    ("sft", sft.main, SFT),
])  # fmt: skip
def test_it_goes_on_in_a_later_epoch(
    stage: str,
    main: Callable[[list[str]], int],
    more: dict[str, Any],
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(grpo, "VerifiableReward", Parity)
    given = {**EPOCHS, **more, "bundles": files / "bundles.jsonl", "output_dir": files / stage}
    given |= {"targets": files / "targets.jsonl"} if stage == "sft" else {}
    arguments = ["--config", f"recipes/tiny/{stage}.yaml", *options(given)]
    assert differences(lambda: main(arguments), files / stage) == []
