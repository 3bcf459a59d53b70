"""Warnings of a training that goes wrong."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import TrainerState

from a2r_train.train.watch import Watch


def said(
    caplog: pytest.LogCaptureFixture,
    *logs: dict[str, float],
    epoch: float = 1.0,
    factor: int = 1,
    resumed_after: Sequence[int] = (),
) -> list[str]:
    """The warnings of a training that logs this; a new process goes on after each of `resumed_after` logs."""
    watch, nothing = Watch(), SimpleNamespace()
    args: Any = SimpleNamespace(oversampling_factor=factor, num_iterations=1)
    state = TrainerState(is_world_process_zero=True, epoch=epoch)
    for step, entry in enumerate(logs, 1):
        if step == 1 or step - 1 in resumed_after:
            watch = Watch()
            watch.on_train_begin(args, state, nothing)  # type: ignore[arg-type]
        state.global_step = step
        state.log_history.append({**entry, "step": step})
        watch.on_log(args, state, nothing, logs=entry)  # type: ignore[arg-type]
    return [record.getMessage() for record in caplog.records]


def entry(length: float = 1.0, dead: float = 0.2) -> dict[str, float]:
    return {"completions/length_ratio": length, "frac_reward_zero_std": dead}


def test_nothing_is_said_of_a_training_that_goes_well(caplog: pytest.LogCaptureFixture) -> None:
    one_bad = entry(0.2, 0.9)
    assert said(caplog, entry(), one_bad, entry(), entry(), {"train_runtime": 1.0}, epoch=4.0) == []


def test_each_warning_is_given_once_with_its_remedy(caplog: pytest.LogCaptureFixture) -> None:
    warnings = said(caplog, *[entry(0.3, 0.7)] * 9, epoch=4.5)
    assert [warning.split(":")[0] for warning in warnings] == ["step 1", "step 3", "step 3"]
    assert "trained on 4.5 times; bundle more problems" in warnings[0]
    assert "30% of their first length" in warnings[1]
    assert "reference: answer" in warnings[1]
    assert "70% of the groups have no signal; bundle problems of medium difficulty" in warnings[2]
    assert warnings[2].endswith("or set oversampling_factor: 2")


def test_with_dynamic_sampling_a_larger_factor_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert "oversampling_factor: 3" in said(caplog, *[entry(dead=0.7)] * 3, factor=2)[0]


def test_with_dynamic_sampling_the_bundles_that_came_often_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    often = [entry() | {"dynamic_sampling/often_trained": share} for share in (0.0, 0.02, 0.1, 0.12, 0.2)]
    (warning,) = said(caplog, *often, epoch=4.5, factor=2)
    assert warning.startswith("step 4: 12% of the bundles were trained on more than 4 times; bundle more")


@pytest.mark.parametrize(
    ("right", "cut", "unread", "remedy"),
    [
        (0.0, 0.9, 1.0, "0.0% of the answers are right, and 90% are cut: raise max_completion_length"),
        (0.01, 0.1, 0.8, "and 80% have no readable answer: correct the prompt, set"),
        (0.01, 0.1, 0.1, "1.0% of the answers are right: begin with SFT"),
        (1.0, 0.0, 0.0, "100.0% of the answers are right: bundle harder problems"),
        (0.4, 0.0, 0.0, "set oversampling_factor: 2"),
    ],
)
def test_dead_groups_have_the_remedy_of_their_kind(
    right: float, cut: float, unread: float, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    rates = {"right_rate": right, "completions/clipped_ratio": cut, "unparsable_rate": unread}
    (warning,) = said(caplog, *[entry(dead=0.9) | rates] * 3)
    assert "90% of the groups have no signal" in warning
    assert remedy in warning
    assert ("oversampling_factor" in warning) == (right == 0.4)


def right(rate: float) -> dict[str, float]:
    return entry() | {"right_rate": rate}


def evaluated(rate: float) -> dict[str, float]:
    return {"eval_right_rate": rate, "eval_frac_reward_zero_std": 0.9}


def test_problems_that_are_memorised_are_told(caplog: pytest.LogCaptureFixture) -> None:
    rising = [right(0.5)] * 3 + [right(0.85)] * 3
    (warning,) = said(caplog, evaluated(0.48), *rising, evaluated(0.53), evaluated(0.53))
    assert "step 8: accuracy rose by 35 points in training, and by 5 in validation" in warning


@pytest.mark.parametrize("resumed_after", [(1,), (4,), (7,), (2, 5)], ids=str)
def test_what_was_memorised_before_a_resume_is_told_after_it(
    resumed_after: Sequence[int], caplog: pytest.LogCaptureFixture
) -> None:
    rising = [right(0.5)] * 3 + [right(0.85)] * 3
    (warning,) = said(
        caplog, evaluated(0.48), *rising, evaluated(0.53), evaluated(0.53), resumed_after=resumed_after
    )
    assert "accuracy rose by 35 points in training, and by 5 in validation" in warning


@pytest.mark.parametrize(
    "logs",
    [
        [evaluated(0.4), *[right(0.5)] * 3, *[right(0.8)] * 3, evaluated(0.55)],  # both rise
        [*[right(0.9)] * 3, evaluated(0.5), *[right(0.95)] * 3, evaluated(0.5)],  # only easier from the start
        [evaluated(0.4), right(0.9), evaluated(0.4)],  # a single step says nothing
        [*[right(0.5)] * 3, *[right(0.9)] * 3, evaluated(0.5)],  # nothing to compare with
        [evaluated(0.4), evaluated(0.4), *[entry()] * 4],
        [evaluated(0.9), *[right(0.5)] * 3, *[right(0.76)] * 3, evaluated(0.93)],  # easier
        [evaluated(0.02), *[right(0.3)] * 3, *[right(0.6)] * 3, evaluated(0.05)],  # harder
        [evaluated(0.6), *[right(0.5)] * 3, *[right(0.45)] * 3, evaluated(0.3)],  # both fall
        [evaluated(0.0), *[right(0.0)] * 3, *[right(0.15)] * 3, evaluated(0.0)],
        [evaluated(0.5), *map(right, (0.2, 0.6, 0.3, 0.9, 0.5, 0.8)), evaluated(0.5)],  # noise of small steps
    ],
)
def test_a_rise_in_training_alone_is_needed(
    logs: list[dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    assert said(caplog, *logs) == []


def test_groups_that_are_drawn_for_their_signal_are_no_rise(caplog: pytest.LogCaptureFixture) -> None:
    """They are easier than the others where most problems are too hard."""
    steps = [right(rate) | {"dynamic_sampling/sampler_right_rate": 0.2} for rate in [0.25] * 3 + [0.5] * 3]
    assert said(caplog, evaluated(0.2), *steps, evaluated(0.2)) == []


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_small_steps_of_a_model_that_learns_nothing_are_no_alarm(
    groups: int, caplog: pytest.LogCaptureFixture
) -> None:
    """At most one in a hundred trainings."""
    draw = np.random.default_rng(0)
    for _ in range(100):
        logs = [evaluated(0.5)]
        for _ in range(6):
            steps = draw.binomial(8, draw.beta(0.6, 0.6, (20, groups))).mean(1) / 8
            logs += [*map(right, steps.tolist()), evaluated(draw.binomial(128, 0.5) / 128)]
        said(caplog, *logs)
    assert len(caplog.records) <= 1


@pytest.mark.parametrize("seed", range(10))
def test_what_is_memorised_shows_through_the_noise(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Accuracies of a training on few problems, in steps of 32 groups."""
    draw, logs = np.random.default_rng(seed), [evaluated(0.28)]
    for step in range(60):
        mean = float(np.interp(step, [0, 33, 60], [0.34, 0.66, 0.8]))
        logs.append(right(float(draw.normal(mean, 0.06))))
        logs += [evaluated(0.43)] if step % 20 == 19 else []
    (warning,) = said(caplog, *logs)
    assert "the training problems are memorised" in warning
