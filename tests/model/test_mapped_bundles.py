"""Bundles that are not in memory: trained on, checked and validated as those that are."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from conftest import bundle_with, options, write_rows

from a2r_train.data import bundles as opened
from a2r_train.data import splits
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.bundles import Bundles
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.records import Bundle, Problem, as_row
from a2r_train.train import bundles as training
from a2r_train.train import grpo, sft
from a2r_train.train.arguments import BundleArguments, ModelArguments
from a2r_train.train.bundles import load_bundles

COUNT = 12


@pytest.fixture(autouse=True)
def mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(opened, "LARGE_BYTES", 0)
    monkeypatch.setattr(opened, "CHECKED_AT_ONCE", 5)
    monkeypatch.setattr(training, "SAMPLE", 4)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def made(tmp_path: Path, tokenizer: str, form: str) -> str:
    """Bundles that `a2r bundle` wrote, in several shards."""
    problems = [
        {"id": f"p{i}", "problem": f"{i} + 1?", "answer": str(i + 1), "metadata": {"i": i}}
        for i in range(COUNT)
    ]
    rollouts = [
        {"problem_id": f"p{i}", "sample": j, "text": rf"So {j} \boxed{{{i + 1 + j % 2}}}"}
        for i in range(COUNT)
        for j in range(4)
    ]
    config = BundleConfig(
        write_rows(tmp_path / "r.jsonl", rollouts), str(tmp_path / form),
        write_rows(tmp_path / "p.jsonl", problems), k=2, tokenizer=tokenizer, format=form,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "SHARD_CHARACTERS", 200)
        return str(bundle(config) / "train.jsonl")


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_they_are_the_same_bundles(form: str, tiny: str, tmp_path: Path) -> None:
    path = made(tmp_path, tiny, form)
    held, found = read(Bundle, path), Bundles.open(path)
    assert found.mapped is not None
    found.check()
    assert list(found) == held
    assert found[3:7] == held[3:7]
    assert found[-1] == held[-1]
    assert list(Bundles.open(path, most=5)) == list(found.first(5)) == held[:5]
    assert found.column("problem").to_pylist() == [one.problem for one in held]
    loaded = load_bundles(BundleArguments(path), ModelArguments(model_name_or_path=tiny))
    rendered = [loaded.prompter.synthesizer(b.problem, b.references) for b in held]
    assert [row.chat for row in loaded.rows] == [one.chat for one in rendered]
    assert loaded.longest_prompt == max(one.prompt_tokens for one in rendered)
    assert len(loaded.sample) == 4


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_training_on_them_is_the_same(
    form: str, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path, tiny, form)
    given: dict[str, Any] = {
        "model_name_or_path": tiny, "bundles": path, "use_cpu": True, "max_steps": 3, "report_to": "none",
        "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 16,
        "activation_checkpointing": False, "learning_rate": 1e-2, "logging_steps": 1,
    }  # fmt: skip
    if form == "parquet":
        given |= {
            "validation": path.replace("parquet", "validation"),
            "eval_strategy": "steps",
            "eval_steps": 3,
        }
        given |= {"per_device_eval_batch_size": 4}
        folder = Path(given["validation"]).parent
        folder.mkdir()
        other = Problem("v", "Another?", "5", "math")
        write_rows(
            folder / "train.jsonl", [as_row(bundle_with(other, ["5", "6"], f"v{i}")) for i in range(2)]
        )
    assert grpo.main(options({**given, "output_dir": tmp_path / "mapped"})) == 0
    monkeypatch.setattr(opened, "LARGE_BYTES", 2**28)
    assert grpo.main(options({**given, "output_dir": tmp_path / "held"})) == 0
    mapped_one, held = (tmp_path / name for name in ("mapped", "held"))
    for name in ("model.safetensors", "trained_on.json"):
        assert (mapped_one / name).read_bytes() == (held / name).read_bytes()


def test_sft_reads_them_too(tiny: str, tmp_path: Path) -> None:
    path = made(tmp_path, tiny, "parquet")
    targets = [
        {"bundle_id": f"p{i}/0", "sample": 0, "text": rf"\boxed{{{i + 1}}}", "answer": str(i + 1),
         "verdict": "correct", "prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "stop",
         "model": "m", "seed": 0}
        for i in range(3)
    ]  # fmt: skip
    given = {
        "model_name_or_path": tiny, "bundles": path, "targets": write_rows(tmp_path / "t.jsonl", targets),
        "output_dir": tmp_path / "out", "max_steps": 1, "use_cpu": True, "report_to": "none",
        "per_device_train_batch_size": 2, "activation_checkpointing": False,
    }  # fmt: skip
    assert sft.main(options(given)) == 0
    done = json.loads((tmp_path / "out" / "done.json").read_text())
    assert done["trained_on"] == f"3 verified answers to {len(read(Bundle, path))} bundles"


def programs(count: int = COUNT) -> list[dict[str, Any]]:
    """Bundles of problems with hidden tests, two of each problem."""
    asked = [
        Problem(
            f"p{i}", f"Write f{i}.", f"def f{i}():\n    return 1", "python_tests",
            metadata={"test_list": [f"assert f{i}() == 1"]},
        )
        for i in range(count)
    ]  # fmt: skip
    return [as_row(bundle_with(one, [one.answer], f"{one.id}/{at}")) for one in asked for at in (0, 1)]


def puzzles() -> list[dict[str, Any]]:
    entry = {"task": "x", "entry": {"question": "?", "answer": "1", "metadata": {}}}
    asked = [Problem(f"p{i}", "?", "1", "reasoning_gym", metadata=entry) for i in range(COUNT)]
    return [as_row(bundle_with(one, ["1"], one.id)) for one in asked]


@pytest.mark.parametrize("made", [programs, puzzles])
def test_what_judges_them_may_be_in_the_metadata(made: Any, tmp_path: Path) -> None:
    rows = made()
    found = Bundles.open(write_rows(tmp_path / "b.jsonl", rows))
    assert found.mapped is not None
    found.check()
    rows[7].pop("metadata")
    lacking = Bundles.open(write_rows(tmp_path / "c.jsonl", rows))
    with pytest.raises(InputError, match=f"problem '{rows[7]['problem_id']}'.* needs"):
        lacking.check()


def test_equal_hidden_tests_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Problem] = []
    check = opened.unreadable_golds
    monkeypatch.setattr(opened, "unreadable_golds", lambda some: check([*map(noted(asked), some)]))
    Bundles.open(write_rows(tmp_path / "b.jsonl", programs())).check()
    assert [one.id for one in asked] == [f"p{i}" for i in range(COUNT)]


def noted(asked: list[Problem]) -> Any:
    return lambda one: (asked.append(one[1]), one)[1]


def rows_with(tmp_path: Path, change: Any) -> Bundles:
    asked = [Problem(f"p{i}", f"{i}?", str(i + 1)) for i in range(COUNT)]
    rows = [as_row(bundle_with(one, [one.answer, "0"], one.id)) for one in asked]
    change(rows)
    return Bundles.open(write_rows(tmp_path / "b.jsonl", rows))


def wrong_gold(rows: list[dict[str, Any]]) -> None:
    rows[7]["answer"] = r"\frac{"


def wrong_reference(rows: list[dict[str, Any]]) -> None:
    rows[8]["references"][0]["answer"] = "77"


def twice(rows: list[dict[str, Any]]) -> None:
    rows[9]["id"] = "p1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (wrong_gold, r"gold answer of 1 problem: row 8, problem 'p7'"),
        (wrong_reference, r"bundle 'p8' has a reference marked correct with '77'"),
        (twice, r"two bundles have the same id"),
    ],
)
def test_what_is_wrong_with_one_is_found(change: Any, says: str, tmp_path: Path) -> None:
    found = rows_with(tmp_path, change)
    with pytest.raises(InputError, match=says):
        found.check()


def test_a_broken_row_of_a_large_file_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"b\.jsonl:3: n_correct is 5, but 1 of the references"):
        rows_with(tmp_path, lambda rows: rows[2].update(n_correct=5))


def test_the_shards_are_read_by_datasets_own_tools(tiny: str, tmp_path: Path) -> None:
    from datasets.distributed import split_dataset_by_node

    path = Path(made(tmp_path, tiny, "parquet"))
    whole = datasets.load_dataset(
        "parquet", data_files=str(path.with_name("train-*.parquet")), split="train", streaming=True
    )
    shares = [split_dataset_by_node(whole, rank=rank, world_size=2) for rank in range(2)]
    found = [[row["id"] for row in share] for share in shares]
    assert all(found)
    assert sorted(found[0] + found[1]) == sorted(bundle.id for bundle in read(Bundle, str(path)))
