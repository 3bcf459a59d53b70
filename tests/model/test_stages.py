"""The stages as functions: keyword arguments read as recipes are, results that print and go on as paths."""

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from conftest import a2r, options
from serving import reply, serving

import a2r_train
from a2r_train import InputError
from a2r_train.data.bundle import BundleConfig
from a2r_train.data.explore import ExploreConfig
from a2r_train.stages import Result
from a2r_train.train import grpo, sft

TINY = {"samples_per_problem": 4, "max_completion_tokens": 5}


def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """A server that says the sum of every problem right."""
    words = body["messages"][-1]["content"].split()
    right = int(words[2]) + int(words[4].strip("?\n")) if "+" in words else 0
    choice = {"message": {"content": f"\\boxed{{{right}}}"}, "finish_reason": "stop"}
    reply(handler, 200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})


@pytest.fixture
def served(tiny: str) -> Iterator[dict[str, Any]]:
    """The keys of an exploration that a server answers."""
    with serving(tiny, answer) as url:
        yield {"model": tiny, "engine": "openai", "endpoint": url, **TINY}


def test_explore_and_bundle_in_a_running_event_loop(
    served: dict[str, Any], problems: str, tmp_path: Path
) -> None:
    async def cell() -> tuple[Result, Result]:
        explored = a2r_train.explore(problems=Path(problems), output_dir=tmp_path / "out", **served)
        return explored, a2r_train.bundle(
            rollouts=explored, problems=problems, output_dir=tmp_path / "bundles", k=1, bundles_per_problem=1
        )

    explored, bundled = asyncio.run(cell())
    assert explored.path == tmp_path / "out" / "rollouts.jsonl"
    assert len(explored.rows) == 7 * 4
    assert explored.lines[0] | {"tokens each": 3} == {
        "problems": 7,
        "rollouts": 28,
        "pass@1": 1.0,
        "pass@4": 1.0,
        "unparsable": 0.0,
        "tokens each": 3,
    }
    assert "pass@4" in str(explored)
    assert str(explored).endswith("rollouts.jsonl")
    assert [len(bundled.rows), bundled.lines[0]["correct references"]] == [7, 1.0]


def test_an_error_in_a_running_loop_is_raised_as_it_is(problems: str, tiny: str, tmp_path: Path) -> None:
    def refuse(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        reply(handler, 401, {"message": "no key"})

    async def cell() -> None:
        with serving(tiny, refuse) as url:
            a2r_train.explore(
                problems=problems,
                model=tiny,
                engine="openai",
                endpoint=url,
                output_dir=tmp_path / "out",
                **TINY,
            )

    with pytest.raises(InputError, match="status 401: no key"):
        asyncio.run(cell())


def test_keywords_and_a_recipe_are_one_run(served: dict[str, Any], problems: str, tmp_path: Path) -> None:
    keys = {"problems": problems, "output_dir": str(tmp_path / "out"), **served}
    a2r_train.explore(columns={"problem": "problem"}, **keys)
    assert a2r("explore", *options(keys), "--columns", '{"problem": "problem"}') == 0
    again = a2r_train.explore(ExploreConfig(columns={"problem": "problem"}, **keys))  # type: ignore[arg-type]
    assert len(again.rows) == 28


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"modle": "m"}, "explore: unknown key 'modle'; did you mean 'model'?"),
        ({"problems": "p.jsonl", "output_dir": "o"}, "explore: missing: --model"),
        ({"problems": "p", "model": "m", "output_dir": "o", "seed": [1]}, "explore: key 'seed' is"),
    ],
)
def test_a_wrong_argument_is_an_exception_of_one_line(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refused:
        a2r_train.explore(**keys)
    assert str(refused.value).startswith(says)


def test_a_config_and_keywords_are_not_both_taken() -> None:
    with pytest.raises(InputError, match="bundle: expected either keyword arguments or BundleConfig"):
        a2r_train.bundle(BundleConfig("r.jsonl", "out"), k=3)
    with pytest.raises(InputError, match="or BundleArguments, SynthesizerGRPOConfig, ModelArguments"):
        a2r_train.grpo(BundleConfig("r.jsonl", "out"))


def test_ctrl_c_in_a_notebook_is_a_keyboard_interrupt(
    tiny: str, bundles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise SystemExit(130)

    monkeypatch.setattr(sft, "train", stopped)
    keys = {"bundles": bundles, "model_name_or_path": tiny, "output_dir": tmp_path / "out", "use_cpu": True}
    with pytest.raises(KeyboardInterrupt):
        a2r_train.sft(**keys)


def test_a_dry_run_shows_and_writes_nothing(
    tiny: str, bundles: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = a2r_train.evaluate(bundles=bundles, base=tiny, output_dir=tmp_path / "out", dry_run=True)
    assert "rows to generate for 7 bundles" in capsys.readouterr().out
    assert not made.rows
    assert not (tmp_path / "out").exists()


def test_temperature_0_in_grpo_is_one_line(
    tiny: str, bundles: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"bundles": bundles, "model_name_or_path": tiny, "output_dir": tmp_path / "out", "use_cpu": True}
    assert grpo.main(options({**keys, "temperature": 0})) == 2
    says = "temperature is 0: GRPO learns from differences between completions of one prompt; expected"
    assert capsys.readouterr().err.startswith(f"error: {says}")


def test_a_url_without_v1_says_so(tiny: str, problems: str, tmp_path: Path) -> None:
    def lost(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        reply(handler, 404, {})

    with serving(tiny, lost) as url:
        base = url.removesuffix("/v1")
        keys = {"engine": "openai", "endpoint": base, "output_dir": tmp_path / "out", **TINY}
        with pytest.raises(InputError) as refused:
            a2r_train.explore(problems=problems, model=tiny, **keys)
    assert str(refused.value).endswith(f"; is it {base}/v1?")
