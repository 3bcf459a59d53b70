"""Dynamic sampling within TRL's trainer, and a control that generates as many tokens as another run."""

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import bundle_with, options
from transformers import TrainerControl, TrainerState
from trl.trainer.grpo_trainer import GRPOTrainer

from a2r_train.data.read import read
from a2r_train.records import CORRECT, INCORRECT, Problem, write
from a2r_train.train import grpo, rewards
from a2r_train.train.generated import Budget, MatchTokens, made_by
from a2r_train.train.rewards import VerifiableReward
from a2r_train.train.sampling import EpochGRPOTrainer

ROOT = Path(__file__).parents[2]
GRPO = {
    "model_name_or_path": "data/tiny/synthesizer", "prompt": "recipes/tiny/prompt.yaml", "use_cpu": True,
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "num_generations": 4,
    "max_completion_length": 24, "max_steps": 2, "save_steps": 1, "logging_steps": 1, "save_total_limit": 10,
}  # fmt: skip


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    problems = read(Problem, "data/tiny/train.jsonl")[:16]
    write([bundle_with(p, [p.answer, "0"]) for p in problems], tmp_path / "bundles.jsonl")
    return {**GRPO, "bundles": tmp_path / "bundles.jsonl", "output_dir": tmp_path / "grpo"}


def train(given: dict[str, Any]) -> dict[str, Any]:
    recipe = "grpo-no-references" if "match_tokens_of" in given else "grpo"
    assert grpo.main(["--config", f"recipes/tiny/{recipe}.yaml", *options(given)]) == 0
    return dict(json.loads((Path(given["output_dir"]) / "trainer_state.json").read_text()))


class Alternating(VerifiableReward):
    """The first half of a group is right, in every group or in every second one; its texts are logged."""

    every = 1

    def __call__(self, completions: Any, log_extra: Any, **_: Any) -> list[float]:  # type: ignore[override]
        log_extra("text", [completion[0]["content"] for completion in completions])
        right = [n % 4 < 2 and n // 4 % self.every == 0 for n in range(len(completions))]
        log_extra("verdict", [CORRECT if one else INCORRECT for one in right])
        return [float(one) for one in right]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """For each generation: what the sampler gave, and what TRL got in its place."""
    found: list[dict[str, Any]] = []
    whole = EpochGRPOTrainer._oversample

    def watch(self: Any, inputs: Any, bank: Any) -> Any:
        rows, kept = whole(self, inputs, bank)
        text = {"texts": list(self._pending_extra_logs["text"])}
        found.append({"sampler": [row["bundle_id"] for row in inputs], "rows": rows, "kept": kept, **text})
        return rows, kept

    monkeypatch.setattr(EpochGRPOTrainer, "_oversample", watch)
    monkeypatch.setattr(grpo, "VerifiableReward", Alternating)
    return found


@pytest.mark.parametrize("shared", [False, True])
def test_where_all_groups_have_signal_the_samplers_are_trained_on(
    shared: bool, given: dict[str, Any], watched: list[dict[str, Any]]
) -> None:
    state = train({**given, "oversampling_factor": 2, "shared_prefix": shared})
    for generation in watched:
        assert [row["bundle_id"] for row in generation["rows"]] == generation["sampler"]
        assert generation["kept"].rewards[:, 0].tolist() == [1.0, 1.0, 0.0, 0.0] * 4
    logged = [row for row in state["log_history"] if "loss" in row]
    assert [row["dynamic_sampling/groups_made"] for row in logged] == [8, 8]
    assert [row["dynamic_sampling/groups_used"] for row in logged] == [4, 4]
    assert [row["dynamic_sampling/signal"] for row in logged] == [1, 1]
    assert 0 < logged[0]["dynamic_sampling/dropped_tokens"] < logged[1]["dynamic_sampling/dropped_tokens"]
    made = state["stateful_callbacks"]["a2r_train"]
    assert made["generated_tokens"] == logged[1]["generated_tokens"] > 2 * made["dropped_tokens"] * 0.8
    assert made["generations"] == 2
    assert len(made["pass_rates"]) > 8


def test_groups_without_signal_give_way_with_all_that_belongs_to_them(
    given: dict[str, Any], watched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 groups, every second one is dead: 4 live ones fill the batch, two of the sampler's among them."""
    monkeypatch.setattr(Alternating, "every", 2)
    items: list[tuple[int, int]] = []
    generate, whole = GRPOTrainer._generate, GRPOTrainer._generate_and_score_completions

    def with_logprobs(self: Any, prompts: Any) -> Any:
        """As vLLM does; each token's is its number."""
        prompt_ids, completion_ids, mask, completions, _, *more = generate(self, prompts)
        return prompt_ids, completion_ids, mask, completions, completion_ids, *more

    def recount(self: Any, inputs: Any) -> Any:
        output = whole(self, inputs)
        mask = output["completion_mask"]
        items.append((int(output["num_items_in_batch"]), int(mask.sum())))
        assert (output["sampling_per_token_logps"] == output["completion_ids"])[mask.bool()].all()
        return output

    monkeypatch.setattr(GRPOTrainer, "_generate", with_logprobs)
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", recount)
    state = train({**given, "oversampling_factor": 2})
    assert all(counted == there for counted, there in items)
    for generation in watched:
        rows, kept = generation["rows"], generation["kept"]
        ids = [row["bundle_id"] for row in rows]
        assert len(ids) == 16
        assert len(set(ids)) == 4
        assert [at for at in ids if at in generation["sampler"]] == [
            *generation["sampler"][:4], *generation["sampler"][8:12],
        ]  # fmt: skip
        assert kept.rewards[:, 0].tolist() == [1.0, 1.0, 0.0, 0.0] * 4
        prompt_ids, _, _, completions, *_ = kept.generated
        assert [completion[0]["content"] for completion in completions] == generation["texts"]
        by_bundle = {(at, tuple(ids)) for at, ids in zip(ids, prompt_ids, strict=True)}
        assert len(by_bundle) == 4
    assert [row["frac_reward_zero_std"] for row in state["log_history"] if "loss" in row] == [0, 0]


def test_how_often_a_bundle_is_trained_on_is_counted(
    given: dict[str, Any], watched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is kept, as bundles are drawn unequally; each group counts for every iteration over it."""
    monkeypatch.setattr(Alternating, "every", 2)
    keys = {"num_iterations": 2, "save_steps": 2, "oversampling_factor": 2}
    state = train(given | keys | {"max_steps": 10})
    counted: Counter[str] = Counter()
    often = []
    for generation in watched:
        counted.update(dict.fromkeys((row["bundle_id"] for row in generation["rows"]), 2))
        often.append(sum(count > 4 for count in counted.values()) / len(counted))
    logged = [row.get("dynamic_sampling/often_trained") for row in state["log_history"] if "loss" in row]
    assert [one for one in logged if one is not None] == pytest.approx(often)
    assert often[-1] > 0
    assert state["stateful_callbacks"]["a2r_train"]["trained"] == dict(counted)
    assert sum(counted.values()) == 10 * 4


def test_dead_groups_fill_a_batch_with_too_few_others(
    given: dict[str, Any], watched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Alternating, "every", 8)
    state = train({**given, "oversampling_factor": 2})
    assert all(sum(one["kept"].rewards[:, 0].tolist()) == 2 for one in watched)
    logged = [row for row in state["log_history"] if "loss" in row]
    assert [row["frac_reward_zero_std"] for row in logged] == [0.75, 0.75]
    assert [row["dynamic_sampling/sampler_right_rate"] for row in logged] == [2 / 16] * 2  # without the drawn


def test_pass_rates_are_learnt_from_verdicts_and_not_from_credits(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four are right; for pass@2 each wrong one earns 2/3."""
    monkeypatch.setattr(rewards, "VerifiableReward", Alternating)
    state = train({**given, "oversampling_factor": 2, "pass_at_k": 2, "max_steps": 1})
    known = state["stateful_callbacks"]["a2r_train"]["pass_rates"]
    assert len(known) == 8
    assert all(seen == [2.0, 4.0] for seen in known.values())


def test_too_few_bundles_are_said_before(given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--config", "recipes/tiny/grpo.yaml", *options({**given, "oversampling_factor": 5})]
    assert grpo.main(argv) == 2
    assert "dynamic sampling: 20 groups are made for 4, of 16 bundles" in capsys.readouterr().err


def test_the_control_goes_on_until_its_tokens_match(
    given: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trained = train({**given, "oversampling_factor": 3})
    tokens = trained["stateful_callbacks"]["a2r_train"]["generated_tokens"]
    control = {**given, "match_tokens_of": given["output_dir"], "output_dir": tmp_path / "control"}
    control["max_steps"] = -1  # as if the recipe did not set it
    state = train(control)
    assert "repeats: 8 groups of 16 bundles" in caplog.text, "of two steps, as the run that it matches"
    made = state["stateful_callbacks"]["a2r_train"]["generated_tokens"]
    steps = state["global_step"]
    assert steps > 2
    counted = [row["generated_tokens"] for row in state["log_history"] if "loss" in row]
    assert counted[-1] == made >= tokens > counted[-2]
    says = f"{steps} steps and {made} generated tokens; {given['output_dir']} had 2 and {tokens}"
    assert says in caplog.text
    assert f"| generated tokens | {made:,}, to match the {tokens:,} of the 2 steps of" in (
        (tmp_path / "control/README.md").read_text()
    )
    weights = (tmp_path / "control/model.safetensors").read_bytes()
    for name in ("model.safetensors", "trainer_state.json", "done.json"):
        (tmp_path / "control" / name).unlink()
    assert train(control)["global_step"] == steps, "its last step was saved, and it takes no further one"
    (tmp_path / "control/done.json").unlink()
    for step in (steps, steps - 1):
        shutil.rmtree(tmp_path / f"control/checkpoint-{step}")
    assert train(control)["global_step"] == steps
    assert (tmp_path / "control/model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(("tokens", "warned"), [(99, 1), (100, 0)])
def test_a_control_whose_tokens_do_not_match_in_ten_times_the_steps_says_so(
    tokens: int, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    state, args, flow = TrainerState(global_step=20), SimpleNamespace(output_dir="control"), TrainerControl()
    made_by(state)["generated_tokens"] = tokens
    matching: Any = MatchTokens(Budget("trained", steps=2, tokens=100), cycle_steps=1)
    matching.on_step_end(args, state, flow)
    assert flow.should_training_stop
    matching.on_train_end(args, state, flow)
    assert len([one for one in caplog.records if one.levelname == "WARNING"]) == warned


@pytest.mark.parametrize(("more", "says"), [
    ({"max_steps": 3}, "max_steps is 3, but"),
    ({"match_tokens_of": "nowhere"}, "nowhere is not a finished training; run it first"),
    ({"lr_scheduler_type": "cosine"}, "set lr_scheduler_type to constant_with_warmup"),
])  # fmt: skip
def test_a_budget_that_cannot_be_matched(
    more: dict[str, Any], says: str, given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = tmp_path / "trained"
    done.mkdir()
    made = {"a2r_train": {"generated_tokens": 100}}
    (done / "trainer_state.json").write_text(json.dumps({"global_step": 2, "stateful_callbacks": made}))
    (done / "done.json").write_text("{}")
    keys = {**given, "match_tokens_of": done, **more}
    assert grpo.main(["--config", "recipes/tiny/grpo-no-references.yaml", *options(keys)]) == 2
    assert says in capsys.readouterr().err
