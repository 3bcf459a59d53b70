"""Evaluate end to end on a tiny model: its rows, what a second run regenerates, and one rendering in all four
places.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml
from conftest import Script, files_of, save_tiny, write_rows

from a2r_train.data.builder import with_references
from a2r_train.data.read import read
from a2r_train.engines import Completion, Engine, Sampling, load_engine
from a2r_train.engines import base as engines
from a2r_train.engines.base import EngineArguments
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate import answers as generate
from a2r_train.evaluate import run as evaluate_run
from a2r_train.inference.two_stage import TwoStage
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Bundle, Reference, Synthesis, as_row
from a2r_train.train.arguments import BundleArguments, ModelArguments
from a2r_train.train.bundles import load_bundles
from a2r_train.train.targets import training_row
from a2r_train.verify import extract


@pytest.fixture
def config(config: EvaluateConfig) -> EvaluateConfig:
    """The shared one, in two chunks and with two samples."""
    return replace(config, chunk_bundles=4, samples=2)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that evaluate loads, in order."""
    names: list[str] = []

    def load(model: str, arguments: EngineArguments, **_: Any) -> engines.Engine:
        names.append(model)
        return load_engine(model, arguments)

    monkeypatch.setattr(generate, "load_engine", load)
    return names


@pytest.mark.usefixtures("drawn")
def test_the_rows_and_the_files(config: EvaluateConfig) -> None:
    results = evaluate(config)
    folder = Path(config.output_dir)
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == [
        *("pass@1", "pass@4", "maj@4", "maj@equal_tokens", "maj@equal_cost", "explorer/greedy"),
        *("synthesizer/alone", "synthesizer/base", "synthesizer/alone@T", "synthesizer/base@T"),
    ]
    made = read(Bundle, config.bundles)
    assert rows["pass@1"]["accuracy"] == pytest.approx(
        sum(min(i, 6) / 6 for i in range(7)) / 7
    )  # of all 6 rollouts
    assert rows["pass@4"]["accuracy"] == pytest.approx(
        (2 / 3 + 14 / 15 + 4) / 7
    )  # 1 - C(5,4) / C(6,4) and so on
    assert "unbiased, over 6 rollouts" in rows["pass@4"]["note"]
    assert all(
        row["n"] == 7 and 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in rows.values()
    )
    assert json.loads((folder / "results.json").read_text()) == results
    assert "synthesizer/base" in (folder / "report.md").read_text()
    html = (folder / "report.html").read_text()
    assert "<svg" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    sampled = kept(config, "synthesizer-base@T")
    assert [(s.bundle_id, s.sample) for s in sampled] == [(b.id, i) for b in made for i in range(2)]
    assert results["setup"]["protocol"].startswith("7 problems x 1 bundles x 1 greedy synthesis, 2 at T=1;")


def test_tokens_of_a_row_are_what_it_reads_and_writes(config: EvaluateConfig) -> None:
    rows = {row["name"]: row for row in evaluate(config)["rows"]}
    found = kept(config, "synthesizer-base")
    assert len(found) == 7
    own = sum(s.prompt_tokens + s.completion_tokens for s in found) / 7
    references = sum(r.tokens for b in read(Bundle, config.bundles) for r in b.references) / 7
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
    (lost,) = Path(config.output_dir).glob("syntheses/synthesizer-base@T/000004-*.jsonl")
    content = lost.read_bytes()
    lost.unlink()
    loaded.clear()
    assert evaluate(config) == first
    assert (loaded, lost.read_bytes()) == ([config.base], content)


def test_an_added_row_computes_itself_alone(
    config: EvaluateConfig, loaded: list[str], tmp_path: Path
) -> None:
    evaluate(config)
    before = files_of(Path(config.output_dir) / "syntheses")
    sft = save_tiny(tmp_path / "sft", seed=9)
    loaded.clear()
    results = evaluate(replace(config, sft=sft))
    assert set(loaded) == {sft}
    assert yaml.safe_load((Path(config.output_dir) / "config.yaml").read_text())["sft"] == sft
    after = files_of(Path(config.output_dir) / "syntheses")
    assert {name: after[name] for name in before} == before
    added = {name.split("/")[0] for name in set(after) - set(before) if not name.startswith("parameters")}
    assert added == {"synthesizer-sft", "synthesizer-sft@T"}
    assert {(p["a"], p["b"]) for p in results["paired"]} >= {
        ("synthesizer/sft", "synthesizer/base"),
        ("synthesizer/sft", "maj@4"),
    }


def test_a_base_that_comes_later_is_a_row_as_any_other(
    config: EvaluateConfig, loaded: list[str], tmp_path: Path
) -> None:
    """So that two hosts may evaluate a model each, and one folder has both."""
    full = replace(config, sft=save_tiny(tmp_path / "sft", seed=9))
    evaluate(replace(full, base=""))
    assert set(loaded) == {full.sft, full.explorer}
    loaded.clear()
    results = evaluate(full)
    assert set(loaded) == {full.base}
    assert results == evaluate(replace(full, output_dir=str(tmp_path / "at-once")))


def test_the_same_weights_under_another_name_are_not_asked_again(
    config: EvaluateConfig, loaded: list[str], tmp_path: Path
) -> None:
    evaluate(config)
    loaded.clear()
    results = evaluate(replace(config, sft=str(copytree(config.base, tmp_path / "sft"))))
    rows = {row["name"]: row["accuracy"] for row in results["rows"]}
    assert (rows["synthesizer/sft"], loaded) == (rows["synthesizer/base"], [])


def test_answers_of_an_earlier_run_are_judged_as_the_prompt_reads_them_now(
    config: EvaluateConfig, script: Script, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gold = {b.problem: b.answer for b in read(Bundle, config.bundles)}
    engine = script(lambda asked: "First: -1\nLast: " + next(a for p, a in gold.items() if p in asked))
    prompt = tmp_path / "prompt.yaml"
    right, asked = [], []
    for pattern in ("First: (.*)", "Last: (.*)"):
        prompt.write_text(f"answer_pattern: '{pattern}'\n")
        results = evaluate(replace(config, prompt=str(prompt), prompt_override=True))
        right.append({row["name"]: row["accuracy"] for row in results["rows"]}["synthesizer/base"])
        asked.append(len(engine.asked))
    assert right == [0.0, 1.0]
    assert asked[0] == asked[1] > 0
    assert "answers get another verdict than in the previous run" in caplog.text
    stored = (Path(config.output_dir) / "syntheses" / "synthesizer-base").glob("0*.jsonl")
    assert {one.verdict for path in stored for one in read(Synthesis, str(path))} == {"correct"}


def test_two_checkpoints_in_turn_keep_both_their_answers(
    config: EvaluateConfig, loaded: list[str], tmp_path: Path
) -> None:
    first, second = (replace(config, sft=save_tiny(tmp_path / str(seed), seed)) for seed in (7, 8))
    results = evaluate(first)
    assert evaluate(second) != results
    loaded.clear()
    assert evaluate(first) == results
    assert loaded == []


@pytest.mark.parametrize(
    "change", [{"temperature": 0.5}, {"samples": 1}, {"max_completion_tokens": 4}, {"seed": 1}]
)
def test_the_key_knows_how_was_sampled(
    config: EvaluateConfig, change: dict[str, Any], tmp_path: Path
) -> None:
    made = [
        read(Bundle, config.bundles),
        generate.Task("x", config.base, sampled=True, samples=config.samples),
    ]
    changed = replace(config, **change)
    task = generate.Task("x", config.base, sampled=True, samples=changed.samples)
    keys = set()
    for one, asked in ((config, made[1]), (changed, task), (changed, replace(task, view="alone"))):
        work = generate.Generator(one, tmp_path)  # type: ignore[arg-type]
        keys.add(work._key(asked, made[0], work.chats(asked, made[0])))  # type: ignore[arg-type]
    assert len(keys) == 3


def test_a_prompt_is_rendered_once_for_all_rows(
    config: EvaluateConfig, thinking_tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered, render = Counter[Any](), generate._render

    def counted(prompter: Prompter, view: str, bundle: Bundle) -> Any:
        rendered[prompter, view, bundle.id] += 1
        return render(prompter, view, bundle)

    monkeypatch.setattr(generate, "_render", counted)
    rows = evaluate(replace(config, budgets="2"))["rows"]
    assert {view for _, view, _ in rendered} == {"alone", "references"}
    assert (len(rendered), set(rendered.values())) == (2 * 7, {1})  # both models have the same tokenizer
    monkeypatch.setattr(generate, "MOST_CHARACTERS", 1)
    assert evaluate(replace(config, budgets="2", output_dir=str(tmp_path / "short")))["rows"] == rows
    assert rendered.total() > 2 * 2 * 7
    rendered.clear()
    another = generate.Generator(replace(config, explorer=thinking_tiny), tmp_path / "thinking")
    bundles = read(Bundle, config.bundles)
    for model in (config.base, thinking_tiny):
        another.chats(generate.Task("x", model, "alone"), bundles)
    assert (len(rendered), rendered.total()) == (2 * 7, 2 * 7)  # its chat template is another


def test_a_checkpoint_with_another_prompt_is_refused(config: EvaluateConfig, tmp_path: Path) -> None:
    folder = copytree(config.base, tmp_path / "sft")
    (folder / "prompt.yaml").write_text(PromptConfig(reference="answer").dump())
    (tmp_path / "prompt.yaml").write_text(PromptConfig().dump())
    with pytest.raises(InputError, match="reference differs from the prompt"):
        evaluate(replace(config, sft=str(folder), prompt=str(tmp_path / "prompt.yaml")))
    assert not Path(config.output_dir).exists()


def test_models_without_a_prompt_read_that_of_the_trained_ones(
    config: EvaluateConfig, tmp_path: Path
) -> None:
    """Rows that are compared differ in their model alone."""
    own = PromptConfig(synthesizer_template="OWN {problem} {references}")
    for name, prompt in (("sft", own), ("grpo", own), ("other", PromptConfig())):
        (copytree(config.base, tmp_path / name) / "prompt.yaml").write_text(prompt.dump())
    bundles = read(Bundle, config.bundles)
    given = replace(config, sft=str(tmp_path / "sft"), grpo=str(tmp_path / "grpo"))
    work = generate.Generator(given, tmp_path / "out")
    first, second = (work.chats(generate.Task("x", model), bundles) for model in (given.base, given.sft))
    assert first == second
    assert first[bundles[0].id][-1]["content"].startswith("OWN ")
    with pytest.raises(
        InputError, match=r"^sft .*sft and grpo .*other were trained with different prompts .*one by one$"
    ):
        evaluate(replace(given, grpo=str(tmp_path / "other")))
    assert not Path(config.output_dir).exists()


def test_a_checkpoint_that_was_trained_anew_is_read_anew(
    config: EvaluateConfig, loaded: list[str], tmp_path: Path
) -> None:
    config = replace(config, sft=save_tiny(tmp_path / "sft", seed=9))
    evaluate(config)
    before = {s.text for s in kept(config, "synthesizer-sft")}
    old = files_of(Path(config.output_dir) / "syntheses")
    save_tiny(tmp_path / "sft", seed=10)
    loaded.clear()
    results = evaluate(config)
    assert set(loaded) == {config.sft}
    found = files_of(Path(config.output_dir) / "syntheses")
    added = {name.split("/")[0] for name in set(found) - set(old) if not name.startswith("parameters")}
    assert added == {"synthesizer-sft", "synthesizer-sft@T"}
    assert results == evaluate(config)
    assert {
        s.text for s in kept(config, "synthesizer-sft")
    } > before  # of both checkpoints, which say other things


def test_other_bundles_under_the_same_name_are_answered_anew(config: EvaluateConfig) -> None:
    evaluate(config)
    before = {s.bundle_id: s for s in kept(config, "synthesizer-base")}
    write_rows(
        Path(config.bundles),
        [asdict(b) | {"problem": b.problem + " Now?"} for b in read(Bundle, config.bundles)],
    )
    evaluate(config)
    after = [s for s in kept(config, "synthesizer-base") if s not in before.values()]
    assert len(after) == 7
    assert all(before[s.bundle_id].prompt_tokens < s.prompt_tokens for s in after)


def kept(config: EvaluateConfig, row: str) -> list[Synthesis]:
    """The syntheses of a row."""
    paths = sorted(Path(config.output_dir).glob(f"syntheses/{row}/*.jsonl"))
    return [s for path in paths for s in read(Synthesis, str(path))]


class Seen(Engine):
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

    from a2r_train.train import grpo

    path = request.getfixturevalue(model)
    (given, *_) = read(Bundle, bundles)
    texts = ["a <|im_end|> </think> b", "Reference 2: c", "\\boxed{3}\n", " d "]
    nasty = with_references(given, [Reference(text, extract(text, given.verifier)) for text in texts])
    only = write_rows(tmp_path / "one.jsonl", [as_row(nasty)])
    engine = load_engine(path)

    solving = Seen(engine, ["x"])
    loop = TwoStage(Seen(engine, texts), solving, k=4)
    loop._explorer_prompter.opens_thinking = False  # as the texts of a bundle hold their own thinking
    loop.solve(nasty.problem)

    evaluating = Seen(engine, ["x"])
    monkeypatch.setattr(generate, "load_engine", lambda *_, **__: evaluating)
    monkeypatch.setattr(
        evaluate_run, "tasks", lambda config: [generate.Task("synthesizer/base", config.base)]
    )
    evaluate(EvaluateConfig(only, str(tmp_path / "out"), path, draws=10))

    data, chosen = BundleArguments(bundles=only), ModelArguments(model_name_or_path=path)
    training = load_bundles(data, chosen)
    row = training_row(training.prompter, training.rows[0].chat, "done")
    sft_ids = row["input_ids"][: row["completion_mask"].index(1)]

    out = str(tmp_path / "grpo")
    args = grpo.SynthesizerGRPOConfig(
        output_dir=out, num_generations=2, per_device_train_batch_size=2, use_cpu=True, report_to="none"
    )
    trainer = GRPOTrainer(
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=grpo.dataset_of(training),
        processing_class=training.prompter.tokenizer,
        model=path,
    )
    grpo_ids = trainer._tokenize_prompts([grpo.dataset_of(training)[0]["prompt"]])[0][0]

    assert list(grpo_ids) == sft_ids == solving.ids[0] == evaluating.ids[0]


@pytest.mark.parametrize("engine", ["transformers", "openai"])
def test_a_checkpoint_that_is_trained_again_is_another_model(
    engine: str, config: EvaluateConfig, tiny: str, other_tiny: str, tmp_path: Path
) -> None:
    """A server's too: it is named by the folder that it serves."""
    folder = str(copytree(tiny, tmp_path / "checkpoint"))
    endpoint = "http://localhost:1/v1" if engine == "openai" else ""
    of_engine = replace(config, engine=engine, endpoint=endpoint)

    def identity() -> str:
        return generate.Generator(of_engine, tmp_path / "answers").identity(folder)

    first = identity()
    assert identity() == first
    copytree(other_tiny, folder, dirs_exist_ok=True)
    assert identity() != first
