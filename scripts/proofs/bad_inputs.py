"""A table of user errors. Each ends with status 2 and one line that names the place and the fix, and writes
nothing. The tests run all of them in one process; fault_table.py runs each in a separate process.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import faults

Keys = dict[str, Any]
Spoil = Callable[[Path, Keys], Keys]  # (folder to write into, the stage's keys) -> the keys that change


@dataclass(frozen=True)
class BadInput:
    """What is wrong, in which stage, how the input is spoilt, and a part of the line that must be printed.

    `model` marks errors that are found only after a tokenizer or model is loaded; the fast tests skip them.
    """

    name: str
    stage: str
    spoil: Spoil
    says: str
    model: bool = False


@dataclass(frozen=True)
class Said:
    """How a stage ended on a bad input."""

    name: str
    stage: str
    status: int
    line: str


def say(case: BadInput, inputs: dict[str, Keys], folder: Path) -> Said:
    """Run the stage on the bad input. Raises RuntimeError if it writes a file or prints a traceback."""
    place = folder / "bad" / case.stage / case.name.replace(" ", "-")
    place.mkdir(parents=True)
    keys = inputs[case.stage]
    keys = {**keys, **case.spoil(place, keys)}
    before = faults.files_of(place)
    ended = faults.run(case.stage, keys, place)
    after = {name: content for name, content in faults.files_of(place).items() if name != "log"}
    if after != before or "Traceback" in ended.says:
        raise RuntimeError(f"{case.name}: {ended.says} {sorted(after.keys() ^ before.keys())}")
    line = ended.line.replace(f"{folder}/", "").removeprefix("error: ")
    return Said(case.name, case.stage, ended.status, line)


def given(**changes: Any) -> Spoil:
    """Only keys change."""
    return lambda *_: changes


def row(key: str, **changes: Any) -> Spoil:
    """The third row of an input file changes; a value of None removes the column."""

    def spoil(folder: Path, keys: Keys) -> Keys:
        rows = [json.loads(line) for line in Path(keys[key]).read_text().splitlines()]
        rows[2] = {name: value for name, value in {**rows[2], **changes}.items() if value is not None}
        lines = [json.dumps(one) for one in rows]
        (folder / f"{key}.jsonl").write_text("\n".join(lines) + "\n")
        return {key: f"{key}.jsonl"}

    return spoil


def program_with(**changes: Any) -> Spoil:
    """The problems file holds one programming problem in MBPP's format, with these fields changed."""
    known = {"text": "Write f.", "code": "def f(a):\n    return a", "test_list": ["assert f(1) == 1"]}
    return file("p.jsonl", json.dumps({**known, **changes}) + "\n", problems="p.jsonl")


def every_row(key: str, **changes: Any) -> Spoil:
    """All rows of an input file change."""

    def spoil(folder: Path, keys: Keys) -> Keys:
        rows = [{**json.loads(line), **changes} for line in Path(keys[key]).read_text().splitlines()]
        (folder / f"{key}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        return {key: f"{key}.jsonl"}

    return spoil


def one_more(key: str, **changes: Any) -> Spoil:
    """The second row of an input file is repeated at the end, with changes."""

    def spoil(folder: Path, keys: Keys) -> Keys:
        lines = Path(keys[key]).read_text().splitlines()
        added = json.dumps({**json.loads(lines[1]), **changes})
        (folder / f"{key}.jsonl").write_text("\n".join([*lines, added]) + "\n")
        return {key: f"{key}.jsonl"}

    return spoil


def broken_line(key: str) -> Spoil:
    """The third line of an input file ends early."""

    def spoil(folder: Path, keys: Keys) -> Keys:
        lines = Path(keys[key]).read_text().splitlines()
        (folder / f"{key}.jsonl").write_text("\n".join([*lines[:2], lines[2][:20], *lines[3:]]))
        return {key: f"{key}.jsonl"}

    return spoil


def rollouts_as_targets(**changes: Any) -> Spoil:
    """SFT's targets are rollouts of its bundles' problems, with some fields changed."""

    def spoil(folder: Path, keys: Keys) -> Keys:
        rollouts = Path(keys["bundles"]).with_name("rollouts.jsonl")
        rows = [json.loads(line) for line in rollouts.read_text().splitlines()]
        (folder / "r.jsonl").write_text("".join(json.dumps({**row, **changes}) + "\n" for row in rows))
        return {"targets": "r.jsonl"}

    return spoil


def targets(right: bool = True, of: str = "", **more: Any) -> Spoil:
    """SFT reads targets, right or wrong, for its bundles or for another one; and keys change."""

    def spoil(folder: Path, keys: Keys) -> Keys:
        bundles = [json.loads(line) for line in Path(keys["bundles"]).read_text().splitlines()]
        verdict = "correct" if right else "incorrect"
        made = [
            {"bundle_id": of or b["id"], "sample": i, "text": rf"\boxed{{{b['answer'] if right else 7}}}",
             "answer": b["answer"] if right else "7", "verdict": verdict, "prompt_tokens": 1,
             "completion_tokens": 1, "finish_reason": "stop", "model": "m", "seed": 0}
            for i, b in enumerate(bundles)
        ]  # fmt: skip
        (folder / "targets.jsonl").write_text("".join(json.dumps(one) + "\n" for one in made))
        return {"targets": "targets.jsonl", **more}

    return spoil


MODEL_KEYS = {
    "explore": "model", "bundle": "tokenizer", "evaluate": "base",
    **dict.fromkeys(faults.TRAINERS, "model_name_or_path"),
}  # fmt: skip


def model(stage: str, change: Callable[[Path], object], key: str = "") -> Spoil:
    """The model that a stage reads is spoilt, or the one of another key."""

    def spoil(folder: Path, keys: Keys) -> Keys:
        change(Path(copytree(keys[MODEL_KEYS[stage]], folder / "model")))
        return {key or MODEL_KEYS[stage]: "model"}

    return spoil


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("open('executed', 'w')\n")


def file(name: str, content: str, **changes: Any) -> Spoil:
    """A file is written, and keys change."""

    def spoil(folder: Path, _: Keys) -> Keys:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
        return changes

    return spoil


OTHER = "problems: other.jsonl\nseed: 0\n"
LOOSE_BRACE = "explorer_template: '{problem} ends in \\\\boxed{}'\n"
RUNS_CODE = "seed: !!python/object/apply:os.mkdir [executed]\n"


def folder_of_another_run(folder: Path, _: Keys) -> Keys:
    (folder / "out").mkdir()
    (folder / "out" / "config.yaml").write_text(OTHER)
    (folder / "out" / "chunks").mkdir()
    (folder / "out" / "chunks" / "000000.jsonl").write_text("{}\n")
    return {}


NO_WEIGHTS = "no weights (*.safetensors) in this folder; name a finished checkpoint"
NO_TEMPLATE = "the tokenizer has no chat template; use an instruct model"
TWO_GENERATIONS = "3 is not a multiple of 2, the steps trained on one generation; a run can resume only there"
OVER_BUDGET = (
    "over the budget of 40 with references cut to 16 tokens: raise max_prompt_tokens, lower k, or leave the "
    "problem out"
)
SMALL_PROMPT = file("prompt.yaml", "max_prompt_tokens: 40\n", prompt="prompt.yaml")
NOT_OURS = "out: holds files of something else (no config.yaml); name another output folder"
OF_ANOTHER_RUN = "here); name another output folder, or remove this one"

OF_PROBLEMS = [
    BadInput("no such file", "explore", given(problems="problem.jsonl"),
             "problem.jsonl: no such file; expected a"),
    BadInput("a folder instead of a file", "explore", given(problems="."),
             ".: is a folder; name a file in it"),
    BadInput("a column is missing", "explore", row("problems", answer=None),
             "problems.jsonl:3: no column 'answer'; the columns are id, problem (map names with `columns:`)"),
    BadInput("an empty answer", "explore", row("problems", answer=" "),
             "problems.jsonl:3: field 'answer' is empty"),
    BadInput("an id used twice", "explore", row("problems", id="p0"),
             "problems.jsonl:3: id 'p0' was already used at problems.jsonl:1; ids must be unique"),
    BadInput("a broken line", "explore", broken_line("problems"), "problems.jsonl:3: not valid JSON"),
    BadInput("a broken Parquet file", "explore", file("p.parquet", "PAR1", problems="p.parquet"),
             "p.parquet: cannot be read as Parquet"),
    BadInput("a number with too many digits", "explore",
             file("p.jsonl", '{"problem": "?", "answer": %s}\n' % ("9" * 5000), problems="p.jsonl"),
             "p.jsonl:1: not valid JSON (Exceeds the limit"),
    BadInput("a gold answer that cannot be parsed", "explore", row("problems", answer="\\frac{"),
             ".jsonl: the verifier cannot parse the gold answer of 1 problem: row 3, problem 'p2' (math)"),
    BadInput("an unknown verifier", "explore", row("problems", verifier="maths"),
             "verifier 'maths': expected math, math_last_number, exact, multiple_choice"),
    BadInput("a custom verifier that cannot be imported", "explore", row("problems",
             verifier="my_package.check"),
             "verifier 'my_package.check': ModuleNotFoundError"),
    BadInput("metadata that is not JSON", "explore", row("problems", metadata="{low: 3"),
             "problems.jsonl:3: field 'metadata': '{low: 3'; expected an object, or its JSON"),
    BadInput("no hidden tests", "explore", row("problems", verifier="python_tests"),
             "problem 'p2': python_tests needs hidden tests: a list of asserts as 'test_list'"),
    BadInput("a hidden test that does not parse", "explore", program_with(test_list=["assert f(1 == 1"]),
             "p.jsonl:1: the test 'assert f(1 == 1' does not parse ('(' was never closed)"),
    BadInput("hidden tests that are not a list", "explore", program_with(test_list="assert f(1) == 1"),
             "p.jsonl:1: test_list is 'assert f(1) == 1'; expected a list of asserts"),
    BadInput("a solution without its function", "explore", program_with(code="def g(a):\n    return a"),
             "p.jsonl:1: field 'code' does not define 'f', which 'assert f(1) == 1' calls"),
    BadInput("an invalid time limit", "explore", program_with(cpu_s="long"),
             "p.jsonl:1: cpu_s is 'long'; expected seconds"),
    BadInput("only tests that check nothing", "explore", program_with(test_list=["assert f(x) == g(x)"]),
             "p.jsonl: no rows; expected at least one problem"),
    BadInput("no Reasoning Gym entry", "explore", row("problems", verifier="reasoning_gym"),
             "problem 'p2': reasoning_gym needs task and entry in the metadata"),
    BadInput("an invalid Reasoning Gym size", "explore",
             given(problems="reasoning_gym:countdown?size=many"),
             "size is 'many'; expected a whole number of at least 1"),
    BadInput("an unknown Reasoning Gym key", "explore",
             given(problems="reasoning_gym:countdown?sise=3"), "unknown key 'sise'; did you mean 'size'?"),
]  # fmt: skip

OF_SETTINGS = [
    BadInput("a misspelt key", "explore", given(temprature=1),
             "command line: unknown key 'temprature'; did you mean 'temperature'?"),
    BadInput("a misspelt key in a recipe", "explore", file("recipe.yaml", "temprature: 1\n",
             config="recipe.yaml"),
             "recipe.yaml: unknown key 'temprature'; did you mean 'temperature'?"),
    BadInput("a value out of range", "explore", given(temperature=-1), "expected temperature >= 0"),
    BadInput("a value that is not a number", "explore", given(temperature="nan"),
             "expected temperature >= 0"),
    BadInput("a value of the wrong type", "explore", given(samples_per_problem="many"),
             "invalid int value: 'many'"),
    *(BadInput(f"{key} of 0", "explore", given(**{key: 0}), f"{key} is 0; expected at least 1")
      for key in ("samples_per_problem", "batch_size", "chunk_problems")),
    BadInput("an invalid shard", "explore", given(shard="2/2"), "expected i/n"),
    BadInput("columns that are no mapping", "explore", given(columns="{"), "expected column names"),
    BadInput("an unknown dtype", "explore", given(dtype="fp16"),
             "dtype 'fp16': expected auto, float32, bfloat16 or float16"),
    BadInput("an unknown dtype", "evaluate", given(dtype="bf16"),
             "dtype 'bf16': expected auto, float32, bfloat16 or float16"),
    *(BadInput("an unknown engine", stage, given(engine="vlm"),
             "engine 'vlm': expected auto, transformers, vllm or openai")
      for stage in ("explore", "evaluate")),
    BadInput("an invalid agreement pattern", "bundle",
             given(mixture="patterns", pattern_shares='{"1-3": 0.5}'),
             "pattern_shares: '1-3' is not a pattern of"),
    BadInput("a recipe that would run code", "explore", file("recipe.yaml", RUNS_CODE, config="recipe.yaml"),
             "is not valid YAML; quote a value that starts with !"),
    BadInput("a prompt with a single brace", "explore", file("prompt.yaml", LOOSE_BRACE,
             prompt="prompt.yaml"),
             "write a literal brace twice: {{ }}", model=True),
]  # fmt: skip

OF_MODELS = [
    BadInput("no such model", "explore", given(model="./nowhere"), "./nowhere: no such folder or file"),
    *(BadInput("a checkpoint without weights", stage, model(stage, without("model.safetensors")), NO_WEIGHTS)
      for stage in ("explore", "evaluate")),
    BadInput("a trained checkpoint without weights", "evaluate",
             model("evaluate", without("model.safetensors"), "sft"), NO_WEIGHTS, model=True),
    BadInput("weights that are not safetensors", "explore", model("explore", pickled), NO_WEIGHTS),
    BadInput("an adapter without base", "explore",
             model("explore", lambda folder: (folder / "adapter_config.json").write_text("{}")),
             "adapter_config.json: names no base_model_name_or_path; expected the config of an adapter"),
    *(BadInput("a model with custom code", stage, model(stage, own_code),
               "model: cannot be loaded (The repository model contains custom code", model=True)
      for stage in ("explore", "sft")),
    *(BadInput("a tokenizer without chat template", stage, model(stage, without("chat_template.jinja")),
             NO_TEMPLATE,
               model=True)
      for stage in ("explore", "bundle", "evaluate")),
]  # fmt: skip

OF_FOLDERS = [
    *(BadInput("an output folder of another run", stage, folder_of_another_run, OF_ANOTHER_RUN, model=True)
      for stage in ("explore", "bundle", "evaluate")),
    *(BadInput("an output folder with other files", stage, file("out/notes.txt", "mine\n"), NOT_OURS,
               model=True) for stage in ("bundle", *faults.TRAINERS)),
]  # fmt: skip

OF_ROLLOUTS = [
    BadInput("rollouts without text", "bundle", row("rollouts", text=None),
             "rollouts.jsonl:3: no column 'text'; the columns are answer, id, problem", model=True),
    *(BadInput(f"rollouts with an empty {key}", "bundle", row("rollouts", **{key: ""}),
               f"rollouts.jsonl:3: field '{key}' is empty", model=True) for key in ("problem", "answer")),
    BadInput("a text beside a list of texts", "bundle", row("rollouts", completions=["5", "6"]),
             "rollouts.jsonl:3: 'text' holds a text and 'completions' a list of them; say which are",
             model=True),
    BadInput("a broken line", "bundle", broken_line("rollouts"), "rollouts.jsonl:3: not valid JSON",
             model=True),
    BadInput("no correct reference anywhere", "bundle", every_row("rollouts", answer="99"),
             "no correct reference anywhere; explore with a stronger model or easier problems", model=True),
    BadInput("rollouts that contradict each other", "bundle", row("rollouts", answer="99"),
             "rollouts.jsonl:3: answer '99', but rollouts.jsonl:1 has '3' for the same problem",
             model=True),
    BadInput("test problems without rollouts", "bundle", given(test_problems="test.jsonl"),
             "test_problems needs test_rollouts", model=True),
    BadInput("a share out of range", "bundle", given(max_all_wrong=-1),
             "max_all_wrong is -1; expected a share"),
    BadInput("too few rollouts", "bundle", given(k=9), "lower k, or explore with more samples", model=True),
    *(BadInput("references over the budget", stage, SMALL_PROMPT, OVER_BUDGET, model=True)
      for stage in ("bundle", "evaluate", *faults.TRAINERS)),
]  # fmt: skip

OF_TRAINING = [
    *(BadInput("a column is missing", stage, row("bundles", answer=None),
             "bundles.jsonl:3: no column 'answer'", True)
      for stage in faults.TRAINERS),
    *(BadInput("an empty answer", stage, one_more("bundles", id="x", answer=""), "field 'answer' is empty",
             True)
      for stage in faults.TRAINERS),
    *(BadInput("an id used twice", stage, one_more("bundles"), "id 'p1' was already used at", True)
      for stage in faults.TRAINERS),
    *(BadInput("a broken line", stage, broken_line("bundles"), "bundles.jsonl:3: not valid JSON", True)
      for stage in faults.TRAINERS),
    *(BadInput("a gold answer that cannot be parsed", stage, every_row("bundles", answer="\\frac{"),
               "\\frac{", True) for stage in faults.TRAINERS),
    *(BadInput("a checkpoint without weights", stage, model(stage, without("model.safetensors")),
             NO_WEIGHTS, True)
      for stage in faults.TRAINERS),
    *(BadInput("a tokenizer without chat template", stage, model(stage, without("chat_template.jinja")),
             NO_TEMPLATE,
               True) for stage in faults.TRAINERS),
    BadInput("no target is right", "sft", targets(right=False), "targets is correct", True),
    BadInput("targets of other bundles", "sft", targets(of="x"),
             "targets.jsonl: a target is for bundle 'x', which is not among the bundles", True),
    BadInput("rollouts of other problems as targets", "sft", rollouts_as_targets(problem_id="x"),
             "r.jsonl: no right rollout of the bundles' problems; is it of other problems?", True),
    BadInput("targets too short for the answer", "sft", given(max_target_tokens=1),
             "a completion of 1 tokens cannot hold a gold answer of", True),
    BadInput("a teacher that is not there", "sft", given(teacher="./nowhere"),
             "./nowhere: no such folder or file", True),
    BadInput("packing without a length", "sft", given(packing=True), "packing: set max_length", True),
    BadInput("rows longer than max_length", "sft", targets(max_length=20),
             "max_length 20 would cut the longest row, of", True),
    BadInput("prompt and completion longer than the context", "grpo", given(max_completion_length=5000),
             "tokens is over the model's context of", True),
    BadInput("nothing to learn from", "grpo",
             every_row("bundles", n_correct=0, references=[{"text": r"\boxed{7}",
                      "verdict": "incorrect"}] * 2),
             "bundle problems of medium difficulty", True),
    BadInput("bundles judged against another answer", "grpo", every_row("bundles", answer="99"),
             "a reference marked correct with '3', but the answer '99'", True),
    BadInput("checkpoints within a generation", "grpo", given(save_steps=3), TWO_GENERATIONS, True),
    BadInput("more groups than bundles", "grpo", given(oversampling_factor=50),
             "lower oversampling_factor, or bundle more problems", True),
    BadInput("a missing run to match", "grpo",
             given(match_tokens_of="nowhere", lr_scheduler_type="constant"),
             "match_tokens_of: nowhere is not a finished training; run it first", True),
    BadInput("fewer than no bundles", "grpo", given(max_bundles=-1),
             "max_bundles is -1; expected at least 0", True),
    BadInput("a missing checkpoint to resume from", "grpo", given(resume_from_checkpoint="nowhere"),
             "resume_from_checkpoint: nowhere is not a complete checkpoint", True),
    BadInput("a share of plain prompts out of range", "grpo", given(plain_share=1.5),
             "plain_share is 1.5; expected a share from 0 to 1", True),
    *(BadInput(f"SFT with {key} {value}", "sft", targets(**{key: value}), says, True) for key, value,
             says in (
        ("completion_only_loss", False,
                 "completion_only_loss: false is not supported: the prompt is never trained on"),
        ("teacher", "./nowhere", "teacher is for sampled targets"),
        ("assistant_only_loss", True, "assistant_only_loss is not supported"),
        ("eval_strategy", "epoch", "SFT has no validation set"),
        ("eval_on_start", True, "SFT has no validation set"),
        ("learning_rate", -1, "learning_rate is -1.0; expected at least 0"),
        ("target_samples", 0, "target_samples is 0; expected at least 1"),
        ("max_targets_per_problem", 0, "max_targets_per_problem is 0; expected at least 1"),
        ("learning_rat", 1, "did you mean 'learning_rate'?"),
        ("model_revision", "v2", "model_revision v2 would change only the weights; download it to a folder"),
    )),
]  # fmt: skip

OF_EVALUATIONS = [
    BadInput("bundles without references", "evaluate", row("bundles", references=None),
             "bundles.jsonl:3: no column 'references'; the columns are answer, id"),
    BadInput("a reference without text", "evaluate", row("bundles", references=[{"answer": "1"}]),
             "bundles.jsonl:3: field 'references': a reference without text"),
    BadInput("bundles with a wrong count", "evaluate", row("bundles", n_correct=9),
             "bundles.jsonl:3: n_correct is 9, but 1 of the references are correct"),
    BadInput("problems instead of bundles", "evaluate",
             file("bundles.jsonl", '{"id": "p", "problem": "1?", "answer": "1"}\n', bundles="bundles.jsonl"),
             "bundles.jsonl:1: no column 'problem_id'; the columns are answer, id, problem"),
    BadInput("rollouts made elsewhere without an answer", "evaluate",
             file("bundles.jsonl", '{"problem": "2?", "text": "2"}\n', bundles="bundles.jsonl", base=""),
             "bundles.jsonl:1: no column 'answer'; the columns are problem, text"),
]  # fmt: skip

OUR_OWN = '{"problem_id": "p", "sample": 0, "text": "7", "answer": "7", "verdict": "%s"}\n'

OF_THE_PROBE = [
    BadInput("no such file", "probe", given(rollouts="nowhere.jsonl"),
             "nowhere.jsonl: no such file; expected a"),
    BadInput("a column is missing", "probe", row("rollouts", text=None),
             "rollouts.jsonl:3: no column 'text'"),
    BadInput("a misspelt key", "probe", given(max_pair=3),
             "command line: unknown key 'max_pair'; did you mean 'max_pairs'?"),
    BadInput("more references than rollouts", "probe", given(k=9),
             "no problem has k = 9 rollouts, at most 8; lower k, or explore with more samples"),
    BadInput("a single reference", "probe", given(k=1), "k is 1; expected at least 2"),
    BadInput("a selector worse than a coin flip", "probe", given(accuracy=0.3),
             "accuracy is 0.3; expected 0.5 or more, and less than 1"),
    BadInput("rollouts with an unknown verdict", "probe",
             file("r.jsonl", OUR_OWN % "right", rollouts="r.jsonl"), "r.jsonl:1: field 'verdict': 'right'"),
    BadInput("rollouts without verdicts", "probe",
             file("r.jsonl", OUR_OWN % "unverified", rollouts="r.jsonl"),
             "sample 0 of problem 'p' has no verdict; name the problems with `problems:`"),
    BadInput("a model without problems", "probe",
             file("r.jsonl", OUR_OWN % "correct" + (OUR_OWN % "correct").replace(": 0", ": 1"),
                  rollouts="r.jsonl", k=2, model="m"),
             "these rollouts have no problem texts, which the model has to read; name the problems with "
             "`problems:`"),
    BadInput("no such model", "probe", given(model="./nowhere"), "./nowhere: no such folder or file"),
    BadInput("an output folder with other files", "probe", file("out/notes.txt", "mine\n"), NOT_OURS),
]  # fmt: skip

BAD_INPUTS = [
    *OF_PROBLEMS, *OF_SETTINGS, *OF_MODELS, *OF_FOLDERS, *OF_ROLLOUTS, *OF_TRAINING, *OF_EVALUATIONS,
    *OF_THE_PROBE,
]  # fmt: skip
