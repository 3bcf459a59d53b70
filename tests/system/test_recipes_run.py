"""The recipes of tiny run, in order, with the shipped models."""

import json
import math
from pathlib import Path

import pytest
import yaml
from conftest import options
from launching import launch
from test_recipes import ROOT, SMALL, STAGES, resolved, status, verb_of

from a2r_train.commands import run as pipeline
from a2r_train.config import load_yaml
from a2r_train.data.read import read
from a2r_train.records import Bundle, Problem, Rollout, Synthesis

pytestmark = pytest.mark.usefixtures("at_root")


def moved(path: Path, out: Path) -> dict[str, str]:
    """The keys of a recipe that name something below runs/, with that below `out` instead."""
    recipe = load_yaml(str(path))
    return {
        k: str(out / v.removeprefix("runs/"))
        for k, v in recipe.items()
        if isinstance(v, str) and v.startswith("runs/")
    }


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages of recipes/tiny in the order of `a2r run`, with the shipped models; whatever they write is
    below here.
    """
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for verb, path in pipeline.stages("recipes/tiny"):
            changes = {**moved(path, out), **SMALL[verb]}
            assert status(verb, ["--config", str(path), *options(changes)]) == 0, path
    return out / "tiny"


def test_the_recipes_of_tiny_run_in_order(small_run: Path) -> None:
    ran = {Path(path).name for _, path in pipeline.stages("recipes/tiny")}
    assert ran == {path.name for path in STAGES if path.parent.name == "tiny"}
    for verb, path in pipeline.stages("recipes/tiny"):
        folder = Path(moved(path, small_run.parent)["output_dir"])
        kept = yaml.safe_load((folder / "config.yaml").read_text())
        for key, value in {
            **resolved(load_yaml(str(path))),
            **moved(path, small_run.parent),
            **SMALL[verb],
        }.items():
            assert kept[key] == value, f"{path}: {key}"
        assert (folder / "done.json").exists()
    rollouts = read(Rollout, str(small_run / "rollouts-train" / "rollouts.jsonl"))
    assert len(rollouts) == 12 * 8
    assert {"correct", "incorrect"} <= {r.verdict for r in rollouts}
    assert all(r.finish_reason == "stop" for r in rollouts if r.verdict == "correct")
    first = [p.id for p in read(Problem, "data/tiny/test.jsonl")[:12]]
    assert [b.problem_id for b in read(Bundle, str(small_run / "bundles" / "test.jsonl"))] == first
    assert all(t.verdict == "correct" for t in read(Synthesis, str(small_run / "sft" / "targets.jsonl")))


def test_the_small_run_has_every_row_of_the_table(small_run: Path) -> None:
    results = json.loads((small_run / "evaluation" / "results.json").read_text())
    names = {row["name"] for row in results["rows"]}
    trained = {
        f"synthesizer/{name}{at}" for name in ("alone", "base", "sft", "sft+grpo") for at in ("", "@T")
    }
    assert {
        "pass@1",
        "pass@4",
        "maj@4",
        "maj@equal_tokens",
        "maj@equal_cost",
        "explorer/greedy",
        *trained,
    } <= names
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in results["rows"])
    for name in ("sft", "grpo"):
        assert (small_run / name / "prompt.yaml").exists()
        assert json.loads((small_run / name / "trainer_state.json").read_text())["global_step"] == 1


def test_the_panel_of_tiny_runs(small_run: Path) -> None:
    for name, small in (
        ("panel-explore", {"max_problems": 8}),
        ("panel-bundle", {}),
        ("panel-grpo-explorer", SMALL["grpo"]),
        ("panel", {**SMALL["evaluate"], "samples": 1, "k_sweep": "1,6"}),
    ):
        path = Path(f"recipes/tiny/{name}.yaml")
        given = {**moved(path, small_run.parent), **small}
        if name == "panel":
            given["rounds_population"] = 6  # of the 8 rollouts that there are here
        assert status(verb_of(path), ["--config", str(path), *options(given)]) == 0
    results = json.loads((small_run / "panel" / "results.json").read_text())
    rows = {row["name"]: row for row in results["rows"]}
    assert {
        "genselect",
        "universal-self-consistency",
        "self-refine",
        "rounds",
        "adaptive",
        "explorer/grpo",
    } <= set(rows)
    assert {"pass@1/4x", "synthesizer/sft+grpo/2x"} <= set(rows)
    assert all("mechanism alone" in rows[name]["note"] for name in ("genselect", "self-refine"))
    assert set(results["diagnostics"]) >= {"gain", "cost", "adaptive", "probes", "k_sweep", "by_majority"}
    assert [one["k"] for one in results["diagnostics"]["k_sweep"]] == [1, 6]
    card = (small_run / "sft" / "README.md").read_text()
    assert "synthesizer/sft" not in card  # these were the first bundles alone, by max_bundles


def test_two_processes_train_together(small_run: Path, tmp_path: Path) -> None:
    changes = {
        **SMALL["sft"],
        "bundles": small_run / "bundles" / "train.jsonl",
        "output_dir": tmp_path / "sft",
    }
    launch("cpu2", "scripts/sft.py", "--config", "recipes/tiny/sft.yaml", *options(changes))
    ranks = {path.name for path in (tmp_path / "sft" / "checkpoint-1").glob("rng_state*")}
    assert ranks == {"rng_state_0.pth", "rng_state_1.pth"}  # each process saves its own
    state = json.loads((tmp_path / "sft" / "trainer_state.json").read_text())
    targets = len((tmp_path / "sft" / "targets.jsonl").read_text().splitlines())
    assert state["global_step"] == 1
    assert state["epoch"] == pytest.approx(1 / math.ceil(targets / (2 * 4)))
    assert (tmp_path / "sft" / "model.safetensors").exists()
