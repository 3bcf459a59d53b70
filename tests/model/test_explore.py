"""Explore ends with the same rollouts however it is cut, killed or spread."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import copyfile, copytree, rmtree
from typing import Any

import accelerate
import explore as script
import pytest
from conftest import Scripted, files_of, write_rows
from rich.console import Console

from a2r_train.atomic import HOST
from a2r_train.commands.dry_run import preview
from a2r_train.commands.gather import gather
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.explore import ExploreConfig, explore, prepared
from a2r_train.data.read import read
from a2r_train.engines import load_engine
from a2r_train.errors import InputError
from a2r_train.prompts import visible
from a2r_train.records import Rollout


def test_launched_processes_wait_for_the_slowest(
    config: ExploreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL's ten minutes are over before a long chunk is."""
    given: dict[str, Any] = {}
    state: Any = accelerate.PartialState()
    monkeypatch.setattr(script, "PartialState", lambda **options: given.update(options) or state)
    monkeypatch.setattr(script, "explore", lambda _: "rollouts")
    script.together(config)
    assert given["timeout"] > timedelta(days=1)


@pytest.fixture
def config(tiny: str, problems: str, tmp_path: Path) -> ExploreConfig:
    out = str(tmp_path / "whole")
    return ExploreConfig(
        problems, tiny, out, samples_per_problem=3, max_completion_tokens=6, chunk_problems=2
    )


def test_every_problem_has_its_samples_with_counts_and_verdicts(config: ExploreConfig) -> None:
    path = explore(config)
    found = read(Rollout, str(path))
    assert [(r.problem_id, r.sample) for r in found] == [(f"p{i}", s) for i in range(1, 8) for s in range(3)]
    assert len({r.seed for r in found}) == 21
    assert len({r.text for r in found}) > 10
    assert all(
        0 < r.completion_tokens <= 6 and r.prompt_tokens > 0 and r.model == config.model for r in found
    )
    assert {r.verdict for r in found} <= {"correct", "incorrect", "unparsable"}
    assert json.loads((path.parent / "done.json").read_text()).keys() == {"rollouts", "pass@1", "unparsable"}


def test_a_killed_run_goes_on_to_the_same_bytes(
    config: ExploreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = explore(config)
    whole, folder = path.read_bytes(), path.parent
    path.unlink()
    (folder / "done.json").unlink()
    (folder / "chunks" / "000001.jsonl").unlink()
    (folder / "chunks" / "000003.jsonl").unlink()
    half = f".000003.jsonl.{HOST}.{2**22 + 1}.part"  # what a kill leaves; no process has this number
    (folder / "chunks" / half).write_text('{"problem_id": "p')
    kept = (folder / "chunks" / "000000.jsonl").stat().st_mtime_ns
    assert explore(replace(config, batch_size=5)).read_bytes() == whole
    assert (folder / "chunks" / "000000.jsonl").stat().st_mtime_ns == kept
    assert not (folder / "chunks" / half).exists()
    monkeypatch.setattr("a2r_train.data.explore.load_engine", None)  # a finished run loads no model
    assert explore(config).read_bytes() == whole


def test_a_chunk_is_judged_while_the_next_is_generated(
    config: ExploreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the verifier waits for the next call of the engine. Judged first, all answers would be late."""
    calls = tmp_path / "calls"
    (tmp_path / "patient.py").write_text(
        "import time\nfrom pathlib import Path\n"
        "def judge(answer, gold):\n"
        "    if answer == gold:\n"  # the check of the gold answers, before anything is generated
        "        return True\n"
        "    end = time.monotonic() + 4\n"
        f"    while len(Path({str(calls)!r}).read_text()) < 2 and time.monotonic() < end:\n"
        "        time.sleep(0.01)\n"
        "    return time.monotonic() < end\n"
    )
    calls.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    engine = Scripted(load_engine(config.model, config), lambda _: r"\boxed{none of these}")
    generate = engine.generate

    def counted(*work: Any) -> Any:
        calls.write_text(calls.read_text() + "x")
        return generate(*work)

    monkeypatch.setattr(engine, "generate", counted)
    monkeypatch.setattr("a2r_train.data.explore.load_engine", lambda *_: engine)
    found = read(Rollout, str(explore(replace(config, verifier="patient:judge", chunk_problems=4))))
    assert [r.verdict for r in found] == ["correct"] * 21


def test_shards_make_what_one_run_makes(config: ExploreConfig, tmp_path: Path) -> None:
    whole = explore(config).read_bytes()
    spread = replace(config, output_dir=str(tmp_path / "shards"))
    for shard in ("2/3", "0/3"):
        assert explore(replace(spread, shard=shard)).name == "chunks"
        assert not (tmp_path / "shards" / "done.json").exists()
    assert explore(replace(spread, shard="1/3")).read_bytes() == whole


def test_parquet_shards_hold_the_same_rollouts(
    config: ExploreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = explore(config)
    monkeypatch.setattr("a2r_train.data.explore.SHARD_BYTES", 800)
    monkeypatch.setattr("a2r_train.data.explore.LARGE_BYTES", 0)
    for name, form in (("large", ""), ("told", "parquet")):
        made = explore(replace(config, output_dir=str(tmp_path / name), format=form))
        assert not made.exists()
        assert len(list(made.parent.glob("rollouts-0*-of-*.parquet"))) > 1
        assert read(Rollout, str(made)) == read(Rollout, str(whole))
        assert read(Rollout, str(made.parent / "chunks")) == read(Rollout, str(whole))
    jsonl = explore(replace(config, output_dir=str(tmp_path / "small"), format="jsonl"))
    assert jsonl.read_bytes() == whole.read_bytes()
    with pytest.raises(InputError, match="format 'csv'"):
        explore(replace(config, output_dir=str(tmp_path / "none"), format="csv"))


def test_chunks_and_other_problems_do_not_change_a_rollout(config: ExploreConfig, tmp_path: Path) -> None:
    whole = explore(config).read_text().splitlines()
    few = replace(config, output_dir=str(tmp_path / "few"), max_problems=3, chunk_problems=3)
    assert explore(few).read_text().splitlines() == whole[:9]
    other = replace(config, output_dir=str(tmp_path / "other"), seed=1)
    assert explore(other).read_text().splitlines() != whole


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"samples_per_problem": 4}, {"chunk_problems": 3}, {"max_problems": 2}]
)
def test_the_folder_of_another_run_is_refused_and_kept(change: dict[str, int], config: ExploreConfig) -> None:
    before = files_of(explore(config).parent)
    with pytest.raises(InputError, match="belongs to another run"):
        explore(replace(config, **change))  # type: ignore[arg-type]
    assert files_of(Path(config.output_dir)) == before


def test_a_model_that_is_not_there_is_said_before_problems_are_drawn(
    config: ExploreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("drawing may take minutes")

    monkeypatch.setattr("a2r_train.data.explore.load_problems", read)
    with pytest.raises(InputError, match="runs/nowhere: "):
        prepared(replace(config, model="runs/nowhere", problems="reasoning_gym:number_sequence"))


def test_a_thinking_model_keeps_its_opened_thinking(config: ExploreConfig, thinking_tiny: str) -> None:
    found = read(Rollout, str(explore(replace(config, model=thinking_tiny, max_problems=2))))
    assert all(r.text.startswith("<think>") for r in found)
    unfinished = [r for r in found if not visible(r.text)]
    assert unfinished
    assert {(r.verdict, r.answer) for r in unfinished} == {("unparsable", "")}


def test_a_checkpoint_is_asked_with_its_own_prompt(
    config: ExploreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = copytree(config.model, tmp_path / "own")
    (own / "prompt.yaml").write_text("explorer_template: 'Mine: {problem}'\n")
    config = replace(config, model=str(own), samples_per_problem=1)
    preview(config, Console())
    assert "Mine: What is 1 + 2?" in capsys.readouterr().out
    engine = Scripted(load_engine(config.model), lambda _: "\\boxed{3}")
    monkeypatch.setattr("a2r_train.data.explore.load_engine", lambda *_, **__: engine)
    explore(config)
    assert engine.asked == [f"Mine: What is {i} + {2 * i}?" for i in range(1, 8)]
    (tmp_path / "other.yaml").write_text("system: other\n")
    other = replace(config, prompt=str(tmp_path / "other.yaml"), output_dir=str(tmp_path / "refused"))
    with pytest.raises(InputError, match=r"other\.yaml: explorer_template differs from the prompt that"):
        explore(other)
    assert not Path(other.output_dir).exists()


@pytest.fixture
def shards(config: ExploreConfig, tmp_path: Path) -> list[str]:
    """The folders of three shards made on three machines."""
    folders = [str(tmp_path / f"machine{i}") for i in range(3)]
    for i, folder in enumerate(folders):
        assert explore(replace(config, output_dir=folder, shard=f"{i}/3", batch_size=4 + i)).name == "chunks"
    return folders


def test_gathered_shards_are_what_one_run_makes(
    config: ExploreConfig, shards: list[str], tmp_path: Path
) -> None:
    whole = explore(config).read_bytes()
    target = gather([shards[2], shards[0], shards[1]], str(tmp_path / "all"))
    assert target == tmp_path / "all" / "rollouts.jsonl"
    assert target.read_bytes() == whole
    assert (tmp_path / "all" / "done.json").read_bytes() == (
        Path(config.output_dir) / "done.json"
    ).read_bytes()
    before = files_of(tmp_path / "all")
    assert gather(shards, str(tmp_path / "all")) == target
    assert (
        explore(replace(config, output_dir=str(tmp_path / "all"))) == target
    )  # for explore, too, it is done
    assert files_of(tmp_path / "all") == before


def test_a_chunk_that_is_missing_twice_or_wrong_is_named(
    config: ExploreConfig, shards: list[str], tmp_path: Path
) -> None:
    first, second = (Path(folder) / "chunks" for folder in shards[:2])
    all_but_one = ", ".join(shards[:2])
    with pytest.raises(
        InputError, match=f"^chunk 2 of 0 to 3 is in none of {all_but_one}; finish or name its shard"
    ):
        gather(shards[:2], str(tmp_path / "all"))
    with pytest.raises(InputError, match=f"{first}/000000.jsonl: this chunk is also in {first}/000000.jsonl"):
        gather([*shards, shards[0]], str(tmp_path / "all"))
    (second / "000004.jsonl").write_bytes((second / "000001.jsonl").read_bytes())
    with pytest.raises(InputError, match=f"{second}/000004.jsonl: one chunk more than {config.problems} has"):
        gather(shards, str(tmp_path / "all"))
    (second / "000004.jsonl").unlink()
    lines = (second / "000001.jsonl").read_text().splitlines(keepends=True)
    for wrong in (lines[:-1], lines[::-1], [*lines[:-1], lines[-1].replace('"seed": ', '"seed": 1')]):
        (second / "000001.jsonl").write_text("".join(wrong))
        with pytest.raises(
            InputError, match=f"{second}/000001.jsonl: does not hold the 6 rollouts of problems p3 to p4"
        ):
            gather(shards, str(tmp_path / "all"))
    assert not (tmp_path / "all").exists()


def test_shards_of_different_runs_are_not_gathered(
    config: ExploreConfig, shards: list[str], tmp_path: Path
) -> None:
    other = str(tmp_path / "warm")
    explore(replace(config, output_dir=other, shard="2/3", temperature=0.5))
    with pytest.raises(
        InputError, match=rf"{other}: belongs to another run than {shards[0]} \(temperature: 0.5, not 1.0\)"
    ):
        gather([*shards[:2], other], str(tmp_path / "all"))
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "config.yaml").write_text("rollouts: r.jsonl\n")
    with pytest.raises(InputError, match="not written by `a2r explore`"):
        gather([shards[0], str(tmp_path / "bundles")], str(tmp_path / "all"))


@pytest.mark.parametrize("what", ["problems", "model", "prompt"])
def test_shards_of_another_input_under_the_same_name_are_not_gathered(
    what: str, config: ExploreConfig, tiny: str, other_tiny: str, tmp_path: Path
) -> None:
    """The ids are the same, and so are the keys of the recipe."""
    model = Path(copytree(tiny, tmp_path / "model"))
    config = replace(config, model=str(model))
    folders = [str(tmp_path / name) for name in ("one", "two", "three")]
    for at, folder in enumerate(folders):
        explore(replace(config, output_dir=folder, shard=f"{at}/3"))
    target = gather(folders, str(tmp_path / "all"))
    assert target.exists()
    rmtree(folders[1])
    if what == "problems":
        changed = Path(config.problems).read_text().replace('"answer": "', '"answer": "1')
        Path(config.problems).write_text(changed)
    elif what == "model":
        copyfile(Path(other_tiny) / "model.safetensors", model / "model.safetensors")
    else:
        (model / "prompt.yaml").write_text("system: Think.\n")
    explore(replace(config, output_dir=folders[1], shard="1/3"))
    named = {"problems": config.problems, "model": f"model {model}", "prompt": "the prompt"}[what]
    with pytest.raises(InputError, match=f"two: {named} has changed since .*one; explore this shard again"):
        gather(folders, str(tmp_path / "again"))
    assert not (tmp_path / "again").exists()


def test_problems_that_changed_after_the_shards_are_not_gathered(
    config: ExploreConfig, shards: list[str], tmp_path: Path
) -> None:
    """The ids are the same, so nothing else would tell that rows were moved, or golds corrected."""
    lines = Path(config.problems).read_text().splitlines(keepends=True)
    Path(config.problems).write_text("".join(lines).replace('"answer": "', '"answer": "1'))
    says = f"{shards[0]}: {config.problems} has changed since this shard was explored; restore it, or explore"
    with pytest.raises(InputError, match=says):
        gather(shards, str(tmp_path / "all"))
    assert not (tmp_path / "all").exists()
    Path(config.problems).write_text("".join(lines))
    target = gather(shards, str(tmp_path / "all"))
    Path(config.problems).write_text("".join(lines).replace('"answer": "', '"answer": "1'))
    with pytest.raises(InputError, match=f"all: {config.problems} has changed since this run"):
        explore(replace(config, output_dir=str(target.parent)))


def test_rows_that_were_moved_after_exploring_are_refused(config: ExploreConfig, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(config.problems).read_text().splitlines()]
    problems = write_rows(tmp_path / "own.jsonl", [{**row, "id": None} for row in rows])
    rollouts = explore(replace(config, problems=problems))
    write_rows(tmp_path / "own.jsonl", [{**row, "id": None} for row in (rows[1], rows[0], *rows[2:])])
    with pytest.raises(InputError, match=r"own\.jsonl: problem '0' is the one that was '1' when"):
        bundle(BundleConfig(str(rollouts), str(tmp_path / "bundles"), problems, k=2))
