"""Which servers `a2r serve` starts, and what they inherit."""

from pathlib import Path

import pytest

from a2r_train.inference.serve.child import command, environment, plans
from a2r_train.inference.serve.config import ServeConfig


def test_a_base_that_is_named_by_two_paths_is_one_server_with_both_names(tiny: str) -> None:
    other = f"{Path(tiny).parent}/./{Path(tiny).name}"
    (plan,) = plans(ServeConfig(explorer=tiny, synthesizer=other))
    assert (plan.base, plan.adapters, plan.serves) == (tiny, (), ("explorer", "synthesizer"))
    words = command(plan, 1, True, 0.5)
    at = words.index("--served-model-name")
    assert words[at + 1 : at + 3] == [tiny, other]


def test_a_server_asks_for_no_key_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    monkeypatch.setenv("OF_THE_USER", "kept")
    for on_cpu in (True, False):
        made = environment(on_cpu, 2)
        assert "VLLM_API_KEY" not in made
        assert made["OF_THE_USER"] == "kept"
