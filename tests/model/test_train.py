"""SFT and GRPO really trained, two steps each, on a random tiny model: folders, resume, labels, rewards, bad
input.
"""

import json
import re
import shutil
from dataclasses import replace

import pytest
from conftest import CHAT_TEMPLATE, bundle_with, files_of, write_rows
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTTrainer

from a2r_train.config import parse
from a2r_train.data.read import read
from a2r_train.engines import Completion, Engine, Sampling
from a2r_train.errors import InputError
from a2r_train.inference.synthesise import syntheses_of
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Bundle, Problem, Reference, Synthesis, write
from a2r_train.train import grpo, sft
from a2r_train.train.arguments import BundleArguments, ModelArguments
from a2r_train.train.bundles import load_bundles
from a2r_train.train.rewards import VerifiableReward
from a2r_train.train.targets import read_targets, reference_targets, select, training_row, training_rows

QUICK = (
    *(
        "--max_steps",
        "2",
        "--per_device_train_batch_size",
        "2",
        "--report_to",
        "none",
        "--logging_steps",
        "1",
    ),
    *(
        "--use_cpu",
        "true",
        "--activation_checkpointing",
        "false",
        "--learning_rate",
        "1e-2",
        "--save_steps",
        "1",
    ),
)
GRPO = ("--num_generations", "2", "--max_completion_length", "12", *QUICK)


@pytest.fixture
def model(tiny):
    return tiny


def bundle(i: int, answers: tuple[str, str] = ("5", "7")) -> Bundle:
    texts = [rf"So \boxed{{{a}}}" for a in answers]
    return bundle_with(Problem(f"p{i}", f"What is {i} more?", "5"), answers, f"b{i}", texts=texts)


@pytest.fixture
def files(tmp_path):
    bundles = [bundle(i) for i in range(4)]
    write(bundles, tmp_path / "bundles.jsonl")
    good = [Synthesis(b.id, 0, r"It is \boxed{5}", "5", "correct", 1, 1, "stop", "m", 0) for b in bundles]
    bad = Synthesis("b0", 1, r"It is \boxed{6}", "6", "correct", 1, 1, "stop", "m", 0)
    write([*good, bad], tmp_path / "targets.jsonl")
    return tmp_path


def arguments(files, model, out, *more):
    common_keys = [
        "--bundles",
        str(files / "bundles.jsonl"),
        "--model_name_or_path",
        model,
        "--output_dir",
        str(files / out),
    ]
    return [*common_keys, *more]


def sft_arguments(files, model, out, *more):
    return arguments(files, model, out, "--targets", str(files / "targets.jsonl"), *QUICK, *more)


def last_step(folder):
    return json.loads((folder / "trainer_state.json").read_text())["global_step"]


def test_sft_then_grpo_write_folders_that_load(files, model, capsys):
    assert sft.main(sft_arguments(files, model, "sft")) == 0
    assert grpo.main(arguments(files, str(files / "sft"), "grpo", *GRPO)) == 0
    for name in ("sft", "grpo"):
        folder = files / name
        assert last_step(folder) == 2
        for part in (
            "config.yaml",
            "versions.json",
            "prompt.yaml",
            "README.md",
            "trained_on.json",
            "done.json",
            "tokenizer.json",
        ):
            assert (folder / part).exists(), part
        AutoModelForCausalLM.from_pretrained(folder)
        assert AutoTokenizer.from_pretrained(folder).chat_template == CHAT_TEMPLATE
    before = AutoModelForCausalLM.from_pretrained(model).get_input_embeddings().weight
    after = AutoModelForCausalLM.from_pretrained(files / "sft").get_input_embeddings().weight
    assert not before.equal(after)
    logged = json.loads((files / "grpo" / "trainer_state.json").read_text())["log_history"]
    assert any("reward/n_correct=1" in entry and "copy_rate" in entry for entry in logged)
    card = (files / "sft" / "README.md").read_text()
    assert "4 verified answers to 4 bundles" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_lora_adapter_goes_on_in_grpo(files, model):
    assert sft.main(sft_arguments(files, model, "sft", "--use_peft", "true", "--lora_r", "2")) == 0
    for _ in range(
        2
    ):  # TRL's `ref`, for the KL term, is not shipped, nor in the way when the folder is finished again
        assert grpo.main(arguments(files, str(files / "sft"), "grpo", *GRPO, "--beta", "0.1")) == 0
        assert {path.name for path in (files / "grpo").iterdir() if path.is_dir()} == {
            "checkpoint-1",
            "checkpoint-2",
        }
        (files / "grpo" / "done.json").unlink()
    config = json.loads((files / "grpo" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == model
    assert config["r"] == 2


def test_lora_from_a_whole_model_in_grpo(files, model, caplog):
    caplog.set_level("INFO")
    assert grpo.main(arguments(files, model, "grpo", "--use_peft", "true", "--lora_r", "2", *GRPO)) == 0
    assert (files / "grpo" / "adapter_model.safetensors").exists()
    assert "training an adapter: rank 2, on q_proj, v_proj; " in caplog.text  # PEFT's choice
    keys = ("--use_peft", "true", "--lora_r", "2", "--lora_target_modules", "all-linear")
    assert sft.main(sft_arguments(files, model, "sft", *keys)) == 0
    said = next(line for line in caplog.messages if "on down_proj, gate_proj, k_proj" in line)
    weights = load_file(files / "sft" / "adapter_model.safetensors").values()
    assert f"; {sum(one.numel() for one in weights):,} of " in said


def test_resumes_and_then_says_done(files, model, caplog, capsys):
    caplog.set_level("INFO")
    assert sft.main(sft_arguments(files, model, "sft")) == 0
    folder = files / "sft"
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "done.json").unlink()
    (folder / "model.safetensors").unlink()
    shutil.rmtree(folder / "checkpoint-2")
    (folder / "checkpoint-2").mkdir()  # what a kill while saving leaves
    states = [folder / "checkpoint-1" / f"rng_state{rank}.pth" for rank in ("", "_0", "_1")]
    for state in states[1:]:
        shutil.copy(states[0], state)
    states[0].rename(folder / "state")
    assert sft.main(sft_arguments(files, model, "sft")) == 2  # as if two processes had saved it
    assert "saved by 2 processes, but 1 would resume, with steps of another size" in capsys.readouterr().err
    (folder / "state").rename(states[0])
    for state in states[1:]:
        state.unlink()
    assert sft.main(sft_arguments(files, model, "sft")) == 0
    assert f"resuming from {folder / 'checkpoint-1'}" in caplog.text
    assert (folder / "model.safetensors").read_bytes() == whole
    assert sft.main(sft_arguments(files, model, "sft")) == 0
    assert "done already" in caplog.text


def test_folder_of_another_run_is_refused(files, model, capsys):
    assert sft.main(sft_arguments(files, model, "sft")) == 0
    before = files_of(files)
    capsys.readouterr()
    assert sft.main(sft_arguments(files, model, "sft", "--seed", "7")) == 2
    error = capsys.readouterr().err
    assert "belongs to another run (seed: 42 there, 7 here)" in error
    assert error.count("\n") == 1
    assert files_of(files) == before


def test_dry_run_shows_and_writes_nothing(files, model, capsys):
    assert sft.main(sft_arguments(files, model, "sft", "--dry_run", "true")) == 0
    shown = capsys.readouterr().out
    assert "<|im_start|>assistant\n⟦It is \\boxed{5}⟧" in shown
    assert "2 per step: 2 steps" in shown
    assert grpo.main(arguments(files, model, "grpo", *GRPO, "--dry_run", "true")) == 0
    assert not [*files.glob("sft"), *files.glob("grpo")]


def test_a_dry_run_of_other_settings_beside_a_finished_run(files, model, capsys):
    assert sft.main(sft_arguments(files, model, "sft")) == 0
    before = files_of(files)
    capsys.readouterr()
    assert (
        sft.main(
            sft_arguments(files, model, "sft", "--seed", "7", "--logging_steps", "3", "--dry_run", "true")
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "\nseed: 7\n" in shown
    assert "\nlogging_steps: 3" in shown
    assert files_of(files) == before


def test_loss_is_on_the_completion_only(files, model):
    data, args, chosen = parse(
        [BundleArguments, sft.SynthesizerSFTConfig, ModelArguments], sft_arguments(files, model, "sft")
    )
    training = load_bundles(data, chosen)
    rows = training_rows(training, read(Synthesis, args.targets), None)
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=training.prompter.tokenizer,
    )
    batches = list(trainer.get_train_dataloader())
    assert sum(len(batch["labels"]) for batch in batches) == len(rows) == 5
    for batch in batches:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            kept = ids[labels != -100]
            assert training.prompter.tokenizer.decode(kept) in (
                r"It is \boxed{5}<|im_end|>",
                r"It is \boxed{6}<|im_end|>",
            )
            prompt = ids[: (labels != -100).int().argmax()].tolist()
            assert prompt in [training.prompter.token_ids(row.chat) for row in training.rows]


def test_thinking_template_opens_the_completion(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    prompter = Prompter(tokenizer)
    row = training_row(prompter, prompter.explorer("1+4?"), r"<think>\nhm</think>\boxed{5}")
    text = tokenizer.decode(row["input_ids"])
    assert text.count("<think>") == 1
    assert text.endswith(r"\boxed{5}<|im_end|>")
    plain = tokenizer.decode(training_row(prompter, prompter.explorer("1+4?"), r"\boxed{5}")["input_ids"])
    assert plain.endswith("<think>\n\n</think>\n\n\\boxed{5}<|im_end|>")
    reward = VerifiableReward(prompter)
    given = {"answer": ["5"], "verifier": ["math"], "n_correct": [0], "majority_answer": [""]}
    assert reward([[{"role": "assistant", "content": r"\boxed{4}</think>\boxed{5}"}]], **given) == [1.0]
    assert reward([[{"role": "assistant", "content": r"\boxed{5}"}]], **given) == [0.0]


def test_reward_and_its_metrics(model):
    logged = []
    texts = [r"\boxed{5}", r"\boxed{7}", r"\boxed{5}", "no idea"]
    rewards = VerifiableReward(Prompter(AutoTokenizer.from_pretrained(model)))(
        [[{"role": "assistant", "content": text}] for text in texts],
        answer=["5"] * 4,
        verifier=["math"] * 4,
        n_correct=[0, 0, 2, 2],
        majority_answer=["7", "7.0", "5", ""],
        log_metric=lambda name, value: logged.append((name, value)),
        prompts=None,
    )
    assert rewards == [1.0, 0.0, 1.0, 0.0]
    assert [v for name, v in logged if name == "reward/n_correct=2"] == [1.0, 0.0]
    assert [v for name, v in logged if name == "new_correct_rate"] == [1.0, 0.0]
    assert [v for name, v in logged if name == "copy_rate"] == [0.0, 1.0, 1.0]
    assert [v for name, v in logged if name == "right_rate"] == rewards
    assert [v for name, v in logged if name == "unparsable_rate"] == [0.0, 0.0, 0.0, 1.0]


def test_control_reads_the_explorers_prompt(files, model):
    argv = arguments(files, model, "x", "--plain_share", "1")
    data, _, chosen = parse([BundleArguments, grpo.SynthesizerGRPOConfig, ModelArguments], argv)
    training = load_bundles(data, chosen)
    assert grpo.dataset_of(training)[0]["prompt"] == training.prompter.explorer("What is 0 more?")
    shown = load_bundles(replace(data, plain_share=0.0), chosen)
    assert "Reference 2:" in grpo.dataset_of(shown)[0]["prompt"][0]["content"]


def test_problems_are_enough_without_references(files, model, capsys):
    """They train an explorer; the same command with references says what to do."""
    problems = files / "problems.jsonl"
    write([Problem(f"p{i}", f"What is {i} more?", str(i), "math") for i in range(8)], problems)
    argv = arguments(files, model, "explorer", *GRPO, "--bundles", str(problems))
    assert grpo.main(argv) == 2
    assert "problems.jsonl: these are problems, without references; make bundles" in capsys.readouterr().err
    assert grpo.main([*argv, "--plain_share", "1"]) == 0
    log = json.loads((files / "explorer" / "trainer_state.json").read_text())["log_history"]
    assert any("reward/plain" in entry for entry in log)
    card = (files / "explorer" / "README.md").read_text()
    assert "| data | 8 problems, from" in card
    assert "It is an explorer, or the no-reference control" in card
    assert "references of their explorer" not in card
    trained_on = json.loads((files / "explorer" / "trained_on.json").read_text())
    assert len(trained_on["trainings"][0]["problems"]) == 2 * 8  # whole texts, and their words
    data, _, chosen = parse(
        [BundleArguments, grpo.SynthesizerGRPOConfig, ModelArguments], [*argv, "--plain_share", "1"]
    )
    assert load_bundles(replace(data, max_bundles=3), chosen).bundles.column("problem_id").to_pylist() == [
        "p0",
        "p1",
        "p2",
    ]


def test_half_of_the_prompts_are_plain(files, model):
    """Recursive self-aggregation (arXiv 2509.26626) trains so: both kinds from the same bundles, the same
    ones each time.
    """
    write([bundle(i) for i in range(40)], files / "bundles.jsonl")
    argv = arguments(files, model, "x", "--plain_share", "0.5")
    data, _, chosen = parse([BundleArguments, grpo.SynthesizerGRPOConfig, ModelArguments], argv)
    training = load_bundles(data, chosen)
    rows = grpo.dataset_of(training)
    shown = ["Reference 2:" in row["prompt"][0]["content"] for row in rows]
    assert 10 < sum(shown) < 30
    assert [row["plain"] for row in rows] == [not s for s in shown]
    assert load_bundles(data, chosen).plain == training.plain
    drawn = syntheses_of(
        Scripted([""] * 40), training.prompter, training.bundles, Sampling(), plain=training.plain
    )
    assert len(drawn) == 40
    assert grpo.main([*argv, *GRPO, "--max_steps", "8"]) == 0
    log = json.loads((files / "x" / "trainer_state.json").read_text())["log_history"]
    assert {key for entry in log for key in entry} >= {"reward/plain", "reward/n_correct=1"}
    assert "the problem alone in 50% of the bundles" in (files / "x" / "README.md").read_text()


def test_the_card_of_answers_alone_does_not_say_that_it_chooses(files, model):
    write([bundle(i) for i in range(8)], files / "bundles.jsonl")
    (files / "answers.yaml").write_text(PromptConfig(reference="answer").dump())
    argv = arguments(files, model, "alone", "--prompt", str(files / "answers.yaml"))
    assert grpo.main([*argv, *GRPO, "--max_steps", "1"]) == 0
    card = (files / "alone" / "README.md").read_text()
    assert "the problem with the answers of the references of its bundle" in card
    assert "It sees only the answers of its references" in card
    assert "tends to choose" not in card


class Scripted(Engine):
    """An engine whose completion is decided by the seed's place in the batch."""

    name, parameters = "scripted", 0

    def __init__(self, texts):
        self.texts = texts

    def generate(self, chats, _sampling, _seeds):
        return [Completion(text, 1, 1, "stop") for _, text in zip(chats, self.texts, strict=True)]


def test_targets_are_correct_capped_and_hardest_first(model):
    right, wrong = r"\boxed{5}", r"\boxed{6}"
    easy, hard, other = replace(bundle(0), problem_id="p"), replace(bundle(1), problem_id="p"), bundle(2)
    texts = [right, right + "!", right + "?", wrong, right, wrong, right, right, right]
    prompter = Prompter(AutoTokenizer.from_pretrained(model))
    drawn = syntheses_of(Scripted(texts), prompter, [easy, hard, other], Sampling(), samples=3)
    kept = select(drawn, [easy, hard, other], 2)
    assert [(s.bundle_id, s.sample) for s in kept] == [("b0", 0), ("b1", 1), ("b2", 0)]


def test_targets_of_others_need_two_columns_alone(files):
    rows = [{"bundle_id": f"b{i % 4}", "text": rf"{i}: \boxed{{{5 if i < 5 else 6}}}"} for i in range(6)]
    path = write_rows(files / "two.jsonl", rows)
    found = read_targets(path, [bundle(i) for i in range(4)])
    assert [(s.bundle_id, s.text) for s in found] == [(row["bundle_id"], row["text"]) for row in rows[:5]]
    with pytest.raises(InputError, match=r"two\.jsonl:1: no column 'sample'"):
        read(Synthesis, path)


def test_few_targets_are_said_when_they_are_counted(caplog):
    sft.warn_few_targets(3, "take more")
    assert "yellow, targets: 3 targets, too few for SFT to learn anything general; take more" in caplog.text
    caplog.clear()
    sft.warn_few_targets(40, "take more")
    assert not caplog.text


@pytest.mark.parametrize(
    ("keys", "supplied", "remedy"),
    [
        ((), False, ", or raise max_targets_per_problem"),  # the cap of a problem binds
        (("--max_targets_per_problem", "9"), False, ", or raise target_samples"),
        (("--targets", "references"), True, ""),
        (("--targets", "mine.jsonl"), True, "supply more of them, or bundle more problems"),
    ],
)
def test_the_remedy_of_few_targets_is_what_limits_them(files, model, keys, supplied, remedy):
    data, args, loaded = parse(sft.ARGUMENTS, arguments(files, model, "x", *QUICK, *keys))
    bundles = load_bundles(data, loaded)
    most = 4 if supplied else sft.epoch_targets(args, bundles, ())
    said = sft.more_targets(args, bundles, most, supplied)
    assert said == (remedy if remedy.startswith("supply") else f"bundle more problems{remedy}")


def test_right_references_as_targets(files, model, capsys):
    """The shortest right one of each bundle, judged anew, no longer than a target may be, and capped."""
    long, false = replace(bundle(1), id="long"), bundle(2)
    word = Reference(r"It must be \boxed{5}", "5", "correct")
    many = Reference(rf"{'so ' * 60}\boxed{{5}}", "5", "correct")
    said = Reference(r"\boxed{7}", "5", "correct")  # a verdict of somebody else
    rows = [
        replace(bundle(0), references=[*bundle(0).references, word], n_correct=2),
        replace(long, references=[many]),
        replace(false, references=[said]),
        *(replace(bundle(3), id=f"same{i}") for i in range(3)),
    ]
    write(rows, files / "bundles.jsonl")
    keys = ("--targets", "references", "--max_target_tokens", "40")
    data, args, loaded = parse(sft.ARGUMENTS, arguments(files, model, "x", *QUICK, *keys))
    found = reference_targets(args, load_bundles(data, loaded))
    assert [(one.bundle_id, one.text, one.verdict) for one in found] == [
        (name, r"So \boxed{5}", "correct") for name in ("b0", "same0", "same1")
    ]
    assert sft.main(arguments(files, model, "sft", *QUICK, *keys)) == 0
    write(rows[1:3], files / "bundles.jsonl")
    assert sft.main(arguments(files, model, "none", *QUICK, *keys)) == 2
    assert "targets: references: none of 1 targets is correct" in capsys.readouterr().err
    write(rows[1:2], files / "bundles.jsonl")  # its right reference is too long
    assert sft.main(arguments(files, model, "none", *QUICK, *keys)) == 2
    says = "targets: references: no bundle has a right reference of at most 40 tokens (max_target_tokens)"
    assert says in capsys.readouterr().err


def test_no_correct_target_ends_the_run(files, model, capsys):
    argv = arguments(files, model, "sft", *QUICK, "--target_samples", "1", "--max_target_tokens", "12")
    assert sft.main(argv) == 2
    error = capsys.readouterr().err
    assert "none of 4 sampled targets is correct; 4 have no answer that can be read, such as " in error
    assert "; name a stronger `teacher`, supply `targets` (" in error
    assert "(`targets: references` takes a right reference of 4 bundles), or skip SFT" in error


def test_a_teacher_with_another_prompt_is_refused(files, model, capsys):
    teacher = shutil.copytree(model, files / "teacher")
    (teacher / "prompt.yaml").write_text("max_prompt_tokens: 4000\n")
    given = arguments(files, model, "sft", *QUICK, "--teacher", str(teacher))
    assert sft.main([*given, "--dry_run", "true"]) == 2
    error = capsys.readouterr().err
    assert "trained with a prompt other than that of this training; set prompt to" in error
    assert error.count("\n") == 1
    assert sft.main([*given, "--dry_run", "true", "--prompt", str(teacher / "prompt.yaml")]) == 0


def test_prompt_of_the_checkpoint_is_kept(files, model):
    shutil.copytree(model, files / "own")
    (files / "own" / "prompt.yaml").write_text("explorer_template: '{problem} own'\n")
    chosen = ModelArguments(model_name_or_path=str(files / "own"))
    assert (
        load_bundles(BundleArguments(str(files / "bundles.jsonl")), chosen).prompter.config.explorer_template[
            -3:
        ]
        == "own"
    )
    (files / "other.yaml").write_text("system: other\n")
    with pytest.raises(InputError, match=r"other\.yaml: explorer_template differs from the prompt that"):
        load_bundles(BundleArguments(str(files / "bundles.jsonl"), prompt=str(files / "other.yaml")), chosen)


def test_a_run_without_a_step_fixes_only_what_its_targets_depend_on(files, model, capsys):
    """A refused sampling fixes nothing; sampled targets fix how they were sampled; a checkpoint all."""
    sampled = ("--target_samples", "1", "--max_target_tokens", "12")
    assert sft.main(arguments(files, model, "sft", *QUICK, *sampled)) == 2
    assert "none of 4 sampled targets is correct" in capsys.readouterr().err
    folder = files / "sft"
    assert (folder / "config.yaml").exists()
    rows = [Synthesis("b0", 0, r"It is \boxed{5}", "5", "correct", 1, 1, "stop", "m", 0)]
    write(rows, folder / "targets.jsonl")
    assert sft.main(arguments(files, model, "sft", *QUICK, *sampled, "--target_temperature", "0.5")) == 2
    assert "target_temperature: 1.0 there, 0.5 here" in capsys.readouterr().err
    changed = ("--learning_rate", "1e-3", "--target_engine", "auto")  # auto is what it settled to
    assert sft.main(arguments(files, model, "sft", *QUICK, *sampled, *changed)) == 0
    assert "learning_rate: 0.001" in (folder / "config.yaml").read_text()
    assert sft.main(arguments(files, model, "sft", *QUICK, *sampled)) == 2
    assert "learning_rate: 0.001 there" in capsys.readouterr().err


def test_targets_may_be_named_after_none_that_was_sampled_is_right(files, model, caplog):
    caplog.set_level("INFO")
    few = ("--target_samples", "1", "--max_target_tokens", "12")
    assert sft.main(arguments(files, model, "sft", *QUICK, *few)) == 2
    assert sft.main(sft_arguments(files, model, "sft")) == 0
    caplog.clear()
    assert sft.main(sft_arguments(files, model, "sft", "--target_engine", "transformers")) == 0
    assert caplog.messages == [f"{files / 'sft'}: done already"]  # without the preflight
