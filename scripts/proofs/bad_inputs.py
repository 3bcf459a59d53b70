"""The mistakes of a user that fault_table.py makes: each must end with status 2 and one line that names place
and mend.
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
    """What is wrong, in which stage, and how it is made so."""

    name: str
    stage: str
    spoil: Spoil


@dataclass(frozen=True)
class Said:
    """How a stage ended on a bad input."""

    name: str
    stage: str
    status: int
    line: str


def say(case: BadInput, inputs: dict[str, Keys], folder: Path) -> Said:
    """Run the stage on the bad input. Raises RuntimeError if it wrote anything, or more than the line."""
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
    """The third row of an input file changes; a value of None removes the column, of ... breaks the line."""

    def spoil(folder: Path, keys: Keys) -> Keys:
        rows = [json.loads(line) for line in Path(keys[key]).read_text().splitlines()]
        rows[2] = {name: value for name, value in {**rows[2], **changes}.items() if value is not None}
        lines = [json.dumps(one) for one in rows]
        (folder / f"{key}.jsonl").write_text("\n".join(lines) + "\n")
        return {key: f"{key}.jsonl"}

    return spoil


def every_row(key: str, **changes: Any) -> Spoil:
    """All rows of an input file change."""

    def spoil(folder: Path, keys: Keys) -> Keys:
        rows = [{**json.loads(line), **changes} for line in Path(keys[key]).read_text().splitlines()]
        (folder / f"{key}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        return {key: f"{key}.jsonl"}

    return spoil


def broken_line(folder: Path, keys: Keys) -> Keys:
    lines = Path(keys["problems"]).read_text().splitlines()
    (folder / "problems.jsonl").write_text("\n".join([*lines[:2], lines[2][:20], *lines[3:]]))
    return {"problems": "problems.jsonl"}


def model(change: Callable[[Path], object]) -> Spoil:
    """The model is spoilt."""

    def spoil(folder: Path, keys: Keys) -> Keys:
        key = "model" if "model" in keys else "model_name_or_path"
        change(Path(copytree(keys[key], folder / "model")))
        return {key: "model"}

    return spoil


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


BAD_INPUTS = [
    BadInput("no such file", "explore", given(problems="problem.jsonl")),
    BadInput("a folder for a file", "explore", given(problems=".")),
    BadInput("a column is missing", "explore", row("problems", answer=None)),
    BadInput("an empty answer", "explore", row("problems", answer=" ")),
    BadInput("an id used twice", "explore", row("problems", id="p0")),
    BadInput("a broken line", "explore", broken_line),
    BadInput("a broken Parquet file", "explore", file("p.parquet", "PAR1", problems="p.parquet")),
    BadInput(
        "digits without end",
        "explore",
        file("p.jsonl", '{"problem": "?", "answer": %s}\n' % ("9" * 5000), problems="p.jsonl"),
    ),
    BadInput("a gold answer that cannot be parsed", "explore", row("problems", answer="\\frac{")),
    BadInput("an unknown verifier", "explore", row("problems", verifier="maths")),
    BadInput(
        "an own verifier that cannot be imported", "explore", row("problems", verifier="my_package.check")
    ),
    BadInput("a misspelt key", "explore", given(temprature=1)),
    BadInput("a value out of range", "explore", given(temperature=-1)),
    BadInput("a value that is no number", "explore", given(temperature="nan")),
    BadInput("a value of another type", "explore", given(samples_per_problem="many")),
    BadInput("a recipe that would run code", "explore", file("recipe.yaml", RUNS_CODE, config="recipe.yaml")),
    BadInput(
        "a prompt with a single brace", "explore", file("prompt.yaml", LOOSE_BRACE, prompt="prompt.yaml")
    ),
    BadInput("no such model", "explore", given(model="./nowhere")),
    BadInput(
        "a checkpoint without weights",
        "explore",
        model(lambda folder: (folder / "model.safetensors").unlink()),
    ),
    BadInput("weights that are not safetensors", "explore", model(pickled)),
    BadInput(
        "an adapter without base",
        "explore",
        model(lambda folder: (folder / "adapter_config.json").write_text("{}")),
    ),
    BadInput("a model with code of its own", "explore", model(own_code)),
    BadInput(
        "a tokenizer without chat template",
        "explore",
        model(lambda folder: (folder / "chat_template.jinja").unlink()),
    ),
    BadInput("an output folder of another run", "explore", folder_of_another_run),
    BadInput("an output folder of something else", "bundle", file("out/notes.txt", "mine\n")),
    BadInput("rollouts without text", "bundle", row("rollouts", text=None)),
    BadInput("no correct reference anywhere", "bundle", every_row("rollouts", answer="99")),
    BadInput("rollouts that contradict each other", "bundle", row("rollouts", answer="99")),
    BadInput("test problems without rollouts", "bundle", given(test_problems="test.jsonl")),
    BadInput("a share out of range", "bundle", given(max_all_wrong=-1)),
    BadInput("too few rollouts", "bundle", given(k=9)),
    BadInput(
        "references over the budget",
        "bundle",
        file("prompt.yaml", "max_prompt_tokens: 40\n", prompt="prompt.yaml"),
    ),
    BadInput("a target cannot hold the answer", "sft", given(max_target_tokens=4)),
    BadInput("packing without a length", "sft", given(packing=True)),
    BadInput("a model with code of its own", "sft", model(own_code)),
    BadInput("a prompt and completion over the context", "grpo", given(max_completion_length=5000)),
    BadInput(
        "nothing to learn from",
        "grpo",
        every_row("bundles", n_correct=0, references=[{"text": r"\boxed{7}", "verdict": "incorrect"}] * 2),
    ),
    BadInput("bundles that were judged by another answer", "grpo", every_row("bundles", answer="99")),
    BadInput("checkpoints within a generation", "grpo", given(save_steps=3)),
    BadInput("a checkpoint to go on from that is none", "grpo", given(resume_from_checkpoint="nowhere")),
    BadInput("bundles without references", "evaluate", row("bundles", references=None)),
    BadInput("a reference without text", "evaluate", row("bundles", references=[{"answer": "1"}])),
    BadInput("bundles that count wrongly", "evaluate", row("bundles", n_correct=9)),
    BadInput("an unknown engine", "evaluate", given(engine="vlm")),
]
