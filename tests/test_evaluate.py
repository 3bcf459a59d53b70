"""Evaluate end to end on a tiny model: its rows, what a second run regenerates, and one rendering in all four places."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any

import pytest
from conftest import files_of, write_rows

from a2r_train.bundle import BundleConfig, build
from a2r_train.engines import Completion, Sampling, load_engine
from a2r_train.engines import base as engines
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate import run as evaluate_run
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Bundle, Synthesis, read
from a2r_train.two_stage import TwoStage


@pytest.fixture
def bundles(tmp_path: Path, rollouts: str, problems: str) -> str:
    """Seven bundles, one a problem."""
    made, _, _ = build(BundleConfig(rollouts, "", problems, bundles_per_problem=1))
    return write_rows(tmp_path / "bundles.jsonl", [asdict(b) for b in made.bundles])


@pytest.fixture
def config(bundles: str, rollouts: str, tiny: str, other_tiny: str, tmp_path: Path) -> EvaluateConfig:
    sizes = {"max_completion_tokens": 5, "chunk_bundles": 4, "samples": 2, "draws": 100}
    return EvaluateConfig(bundles, str(tmp_path / "out"), other_tiny, explorer=tiny, rollouts=rollouts, **sizes)  # type: ignore[arg-type]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that evaluate loads, in order."""
    names: list[str] = []

    def load(kind: str, model: str, **options: Any) -> engines.Engine:
        names.append(model)
        return load_engine(kind, model, **options)

    monkeypatch.setattr(evaluate_run, "load_engine", load)
    return names


def test_the_rows_and_the_files(config: EvaluateConfig) -> None:
    results = evaluate(config)
    folder = Path(config.output_dir)
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == [
        *("pass@1", "pass@4", "maj@4", "maj@equal_tokens", "maj@equal_cost", "explorer/greedy"),
        *("synthesizer/alone", "synthesizer/base", "synthesizer/alone@T", "synthesizer/base@T"),
    ]
    made = read(Bundle, config.bundles)
    assert rows["pass@1"]["accuracy"] == pytest.approx(sum(b.n_correct / 4 for b in made) / 7)
    assert rows["pass@4"]["accuracy"] == pytest.approx(sum(b.n_correct > 0 for b in made) / 7)
    assert all(row["n"] == 7 and 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in rows.values())
    assert json.loads((folder / "results.json").read_text()) == results
    assert "synthesizer/base" in (folder / "report.md").read_text()
    html = (folder / "report.html").read_text()
    assert "<svg" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    sampled = read(Synthesis, str(folder / "syntheses" / "synthesizer-base@T" / "000000.jsonl"))
    assert [(s.bundle_id, s.sample) for s in sampled] == [(b.id, i) for b in made[:4] for i in range(2)]


def test_tokens_of_a_row_are_what_it_reads_and_writes(config: EvaluateConfig) -> None:
    rows = {row["name"]: row for row in evaluate(config)["rows"]}
    found = [s for at in (0, 4) for s in read(Synthesis, f"{config.output_dir}/syntheses/synthesizer-base/{at:06d}.jsonl")]
    own = sum(s.prompt_tokens + s.completion_tokens for s in found) / 7
    references = sum(sum(b.reference_tokens) for b in read(Bundle, config.bundles)) / 7
    assert rows["synthesizer/base"]["tokens"] == pytest.approx(own + references)
    assert rows["explorer/greedy"]["tokens"] <= 5
    assert rows["maj@4"]["tokens"] == pytest.approx(references)


def test_a_second_run_generates_nothing(config: EvaluateConfig, loaded: list[str]) -> None:
    first = evaluate(config)
    assert loaded
    before = files_of(Path(config.output_dir) / "syntheses")
    loaded.clear()
    assert evaluate(config) == first
    assert loaded == []
    assert files_of(Path(config.output_dir) / "syntheses") == before


def test_a_killed_run_makes_the_missing_chunk_alone(config: EvaluateConfig, loaded: list[str]) -> None:
    first = evaluate(config)
    lost = Path(config.output_dir) / "syntheses" / "synthesizer-base@T" / "000004.jsonl"
    content = lost.read_bytes()
    lost.unlink()
    loaded.clear()
    assert evaluate(config) == first
    assert (loaded, lost.read_bytes()) == ([config.base], content)


def test_an_added_row_computes_itself_alone(config: EvaluateConfig, loaded: list[str], tmp_path: Path) -> None:
    evaluate(config)
    before = files_of(Path(config.output_dir) / "syntheses")
    sft = str(copytree(config.base, tmp_path / "sft"))
    loaded.clear()
    results = evaluate(replace(config, sft=sft))
    assert set(loaded) == {sft}
    after = files_of(Path(config.output_dir) / "syntheses")
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in set(after) - set(before)} == {"synthesizer-sft", "synthesizer-sft@T"}
    rows = {row["name"]: row["accuracy"] for row in results["rows"]}
    assert rows["synthesizer/sft"] == rows["synthesizer/base"]  # the same weights
    assert {(p["a"], p["b"]) for p in results["paired"]} >= {
        ("synthesizer/sft", "synthesizer/base"),
        ("synthesizer/sft", "maj@4"),
    }


def test_a_row_of_another_checkpoint_is_refused(config: EvaluateConfig, tmp_path: Path) -> None:
    sft, other = (str(copytree(config.base, tmp_path / name)) for name in ("sft", "other"))
    evaluate(replace(config, sft=sft))
    before = files_of(Path(config.output_dir))
    with pytest.raises(InputError, match=f"made by {sft}, not by {other}; name another output folder"):
        evaluate(replace(config, sft=other))
    assert files_of(Path(config.output_dir)) == before


def test_a_checkpoint_with_another_prompt_is_refused(config: EvaluateConfig, tmp_path: Path) -> None:
    folder = copytree(config.base, tmp_path / "sft")
    (folder / "prompt.yaml").write_text(PromptConfig(reference="answer").dump())
    (tmp_path / "prompt.yaml").write_text(PromptConfig().dump())
    with pytest.raises(InputError, match="reference differs from the prompt"):
        evaluate(replace(config, sft=str(folder), prompt=str(tmp_path / "prompt.yaml")))
    assert not Path(config.output_dir).exists()


def test_a_checkpoint_that_was_trained_anew_is_read_anew(
    config: EvaluateConfig, loaded: list[str], tiny: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = replace(config, sft=str(copytree(config.base, tmp_path / "sft")))
    before = {row["name"]: row["accuracy"] for row in evaluate(config)["rows"]}
    kept = files_of(Path(config.output_dir) / "syntheses")
    copyfile(f"{tiny}/model.safetensors", f"{config.sft}/model.safetensors")
    loaded.clear()
    results = evaluate(config)
    assert set(loaded) == {config.sft}
    assert f"{config.sft} or the bundles have changed since; made anew" in caplog.text
    found = files_of(Path(config.output_dir) / "syntheses")
    assert {name.split("/")[0] for name in found if found[name] != kept[name]} == {"synthesizer-sft", "synthesizer-sft@T"}
    assert results == evaluate(config)
    assert {row["name"] for row in results["rows"]} == set(before)


def test_other_bundles_under_the_same_name_are_answered_anew(config: EvaluateConfig) -> None:
    evaluate(config)
    place = Path(config.output_dir) / "syntheses" / "synthesizer-base" / "000000.jsonl"
    before = read(Synthesis, str(place))
    write_rows(Path(config.bundles), [asdict(b) | {"problem": b.problem + " Now?"} for b in read(Bundle, config.bundles)])
    evaluate(config)
    assert all(a.prompt_tokens < b.prompt_tokens for a, b in zip(before, read(Synthesis, str(place)), strict=True))


class Seen:
    """An engine that keeps the token ids of what it is asked and answers by script."""

    def __init__(self, engine: Any, texts: Sequence[str]) -> None:
        self.name, self.parameters, self.tokenizer = engine.name, engine.parameters, engine.tokenizer
        self.prompter, self.texts, self.ids = Prompter(engine.tokenizer), texts, list[list[int]]()

    def generate(self, chats: Sequence[Any], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        assert sampling
        self.ids += [self.prompter.token_ids(chat) for chat in chats]
        return [Completion(self.texts[i % len(self.texts)], 1, 1, "stop") for i in range(len(seeds))]


@pytest.mark.parametrize("model", ["tiny", "thinking_tiny"])
def test_sft_grpo_solve_and_evaluate_read_the_same_tokens(
    model: str, bundles: str, tmp_path: Path, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer.grpo_trainer import GRPOTrainer

    from a2r_train.train import common, grpo, sft

    path = request.getfixturevalue(model)
    (given, *_) = read(Bundle, bundles)
    nasty = replace(given, references=["a <|im_end|> </think> b", "Reference 2: c", "\\boxed{3}\n", " d "])
    only = write_rows(tmp_path / "one.jsonl", [asdict(nasty)])
    engine = load_engine("transformers", path)

    solving = Seen(engine, ["x"])
    loop = TwoStage(Seen(engine, nasty.references), solving, k=4)
    loop._explorer_prompter.opens_thinking = False  # as the texts of a bundle hold their own thinking
    loop.solve(nasty.problem)

    evaluating = Seen(engine, ["x"])
    monkeypatch.setattr(evaluate_run, "load_engine", lambda *_, **__: evaluating)
    monkeypatch.setattr(evaluate_run, "tasks", lambda config: [evaluate_run.Task("synthesizer/base", config.base, True, False)])
    evaluate(EvaluateConfig(only, str(tmp_path / "out"), path, draws=10))

    data, chosen = common.BundleArguments(bundles=only), common.ModelArguments(model_name_or_path=path)
    material = common.load_material(data, chosen)
    row = sft.training_row(material.prompter, material.chats[0], "done")
    sft_ids = row["input_ids"][: row["completion_mask"].index(1)]

    out = str(tmp_path / "grpo")
    args = grpo.SynthesizerGRPOConfig(
        output_dir=out, num_generations=2, per_device_train_batch_size=2, use_cpu=True, report_to="none"
    )
    trainer = GRPOTrainer(
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=grpo.dataset_of(material),
        processing_class=material.prompter.tokenizer,
        model=path,
    )
    grpo_ids = trainer._tokenize_prompts([grpo.dataset_of(material)[0]["prompt"]])[0][0]

    assert list(grpo_ids) == sft_ids == solving.ids[0] == evaluating.ids[0]
