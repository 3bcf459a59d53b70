"""`a2r run FOLDER --dry_run`: reads recipes, prompts and columns of the folder, and reports what would fail.

Below each stage it prints what the stage reads and makes, and at the end the first prompt. An input that an
earlier stage will write is no error; such a stage is checked as far as its other inputs allow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from a2r_train.commands import counts, merge
from a2r_train.commands.merge import MergeConfig, check_merge
from a2r_train.config import load_yaml, parse
from a2r_train.data import bundle as bundling
from a2r_train.data import explore as exploring
from a2r_train.data.bundles import Bundles
from a2r_train.data.read import Columns, questions, read
from a2r_train.data.task import prompt_of
from a2r_train.engines import EngineArguments, check_engine
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig
from a2r_train.evaluate import run as evaluating
from a2r_train.evaluate.config import check
from a2r_train.models import load_tokenizer, model_file
from a2r_train.paths import has_data, paths_in
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Problem, Rollout
from a2r_train.train import grpo, sft
from a2r_train.train import run as training
from a2r_train.train.generated import budget_of

ARGUMENTS: dict[str, list[Any]] = {
    "merge": [MergeConfig],
    "explore": [exploring.ExploreConfig],
    "bundle": [bundling.BundleConfig],
    "sft": sft.ARGUMENTS,
    "grpo": grpo.ARGUMENTS,
    "evaluate": [EvaluateConfig],
}
CHECK_FOLDER: dict[str, Callable[..., None]] = {
    "merge": merge.check_folder,
    "explore": exploring.check_folder,
    "bundle": bundling.check_folder,
    "sft": training.check_folder,
    "grpo": grpo.check_folder,
    "evaluate": evaluating.check_folder,
}
AGAINST = "decontaminate_against"  # of whose problems the answers need not be known
PROBLEMS = ("problems", "test_problems", AGAINST)
ROLLOUTS = ("rollouts", "test_rollouts")
BUNDLES = ("bundles", "validation", "adaptive_validation")
ASKED = ("model", "tokenizer", "model_name_or_path", "base", "sft", "grpo", "no_references")  # with `prompt`
MODELS = (
    *ASKED,
    *("teacher", "explorer", "explorer_grpo", "monolith", "reward_model"),
)
MATCHED = "match_tokens_of"


@dataclass(frozen=True, eq=False)
class Planned:
    """One stage: its parsed recipe, which inputs are still to be written, what would fail, what it reads and
    makes, and the first prompt that it would ask.
    """

    verb: str
    path: Path
    configs: Sequence[Any] = ()
    done: bool = False
    coming: dict[str, Planned] = field(default_factory=dict)  # by input: the stage that will write it
    errors: list[str] = field(default_factory=list)
    says: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)

    def value(self, key: str) -> Any:
        """A key of the recipe, "" if the stage has none of that name."""
        return next((getattr(c, key) for c in self.configs if hasattr(c, key)), "") or ""

    def inputs(self, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(key, file or model) of each named input that no earlier stage is to write."""
        for key in keys:
            for path in paths_in(str(self.value(key))):
                if path not in self.coming:
                    yield key, path


def show_plan(folder: str, stages: Sequence[tuple[str, Path]]) -> None:
    """Print a line per stage, one with its counts, one for each thing that would fail, and then the first
    prompt.

    Raises InputError if anything would fail.
    """
    failing, prompts = 0, list[tuple[Path, str]]()
    for stage in plan(stages):
        state = "done" if stage.done else "to do"
        sys.stdout.write(f"{state:5}  {stage.verb:8}  {stage.path} -> {stage.value('output_dir')}\n")
        sys.stdout.writelines(f"       {line}\n" for line in stage.says)
        sys.stdout.writelines(f"       fails: {error}\n" for error in stage.errors)
        failing += bool(stage.errors)
        prompts += [(stage.path, prompt) for prompt in stage.prompts]
    for path, prompt in prompts[:1]:
        sys.stdout.write(f"\n--- the first prompt, of {path}\n{prompt}\n---\n")
    if failing:
        raise InputError(f"{folder}: {failing} of {len(stages)} stages would fail; see above")


def plan(stages: Sequence[tuple[str, Path]]) -> Iterator[Planned]:
    """Each stage as it would run, in this order. Of a finished stage only the counts are read, and only its
    folder is checked.
    """
    written: dict[str, Planned] = {}
    for verb, path in stages:
        stage = _planned(verb, path, written)
        checks = (_check_folder,) if stage.done else (_check_folder, _missing, _check)
        for one in () if stage.errors else checks:
            stage.errors.extend(_errors_of(one, stage, written))
        if stage.done and (said := counts.done(str(stage.value("output_dir")))):
            stage.says.append(said)
        written |= dict.fromkeys(_writes(stage), stage)
        yield stage


def _planned(verb: str, path: Path, written: dict[str, Planned]) -> Planned:
    try:
        configs = parse(ARGUMENTS[verb], ["--config", str(path)])
    except InputError as error:
        return Planned(verb, path, _as_written(path), errors=[str(error)])
    stage = Planned(verb, path, configs)
    done = (Path(stage.value("output_dir")) / "done.json").is_file()
    coming = {
        part: maker
        for key in (*PROBLEMS, *ROLLOUTS, *BUNDLES, *MODELS, MATCHED)
        for part in paths_in(str(stage.value(key)))
        if (maker := written.get(os.path.normpath(part))) and not maker.done
    }
    return Planned(verb, path, configs, done, coming)


def _as_written(path: Path) -> list[Any]:
    """The keys of a refused recipe, because later stages read what it would have made."""
    try:
        return [SimpleNamespace(**load_yaml(str(path)))]
    except (InputError, TypeError):
        return []


def _writes(stage: Planned) -> list[str]:
    """The paths of this stage that later stages may name."""
    names = {"explore": ["rollouts.jsonl"], "bundle": ["train.jsonl"], "evaluate": []}.get(stage.verb, ["."])
    if stage.verb == "bundle" and (stage.value("test_share") or stage.value("test_rollouts")):
        names += ["test.jsonl", "test-rollouts.jsonl"]
    folder = str(stage.value("output_dir"))
    return [os.path.normpath(os.path.join(folder, name)) for name in names] if folder else []


def _errors_of(check_one: Any, stage: Planned, written: dict[str, Planned]) -> list[str]:
    try:
        found: list[str] = check_one(stage, written)
    except InputError as error:
        return [str(error)]
    return found


def _check_folder(stage: Planned, _written: dict[str, Planned]) -> list[str]:
    """The run refuses a folder with other keys, or with input files that have changed."""
    CHECK_FOLDER[stage.verb](*stage.configs)
    return []


def _missing(stage: Planned, written: dict[str, Planned]) -> list[str]:
    """Inputs below the folder of an earlier stage that it will not write."""
    said = []
    for key, path in stage.inputs((*PROBLEMS, *ROLLOUTS, *BUNDLES, *MODELS)):
        for maker in dict.fromkeys(written.values()) if not (os.path.exists(path) or has_data(path)) else ():
            folder, made = os.path.normpath(str(maker.value("output_dir"))), _writes(maker)
            if os.path.normpath(path).startswith(folder + os.sep):
                said.append(f"{stage.path}: {key}: {maker.path} writes {', '.join(made)}, not {path}")
    return said


def _check(stage: Planned, written: dict[str, Planned]) -> list[str]:
    """What the stage itself would report; if inputs are still to come, what the others report."""
    if stage.errors:
        return []
    if stage.coming:
        return [*_check_parts(stage), *_check_prompt(stage), *_check_k(stage, written)]
    config = stage.configs[0]
    if stage.verb == "merge":
        check_merge(config)
    elif stage.verb == "explore":
        problems, prompter = exploring.prepared(config)
        stage.says.append(counts.explored(config, problems))
        stage.prompts.append(prompter.text(prompter.explorer(problems[0].problem)))
    elif stage.verb == "bundle":
        with bundling.built(config) as made:
            stage.says.extend(counts.bundled(made))
            stage.prompts.extend(filter(None, [counts.prompt_of_bundles(config, made)]))
    elif stage.verb == "evaluate":
        _, bundles, rollouts, _ = evaluating.prepared(config)
        stage.says.append(counts.evaluated(config, bundles, rollouts))
    else:
        return _check_training(stage)
    return []


def _check_training(stage: Planned) -> list[str]:
    """The preflight."""
    trainer: Any = {"sft": sft, "grpo": grpo}[stage.verb]
    checks = trainer.checks(*stage.configs)
    stage.says.append(counts.checked(stage.configs[0], checks))
    return [f"{stage.path}: {one.name}: {one.detail}" for one in checks if not one.passed]


def _check_parts(stage: Planned) -> list[str]:
    """Check the numbers, and those problems, columns, bundles, models and prompts that are there."""
    for name, maker in stage.coming.items() if stage.verb in ("sft", "grpo") else ():
        stage.says.append(f"waits for {name}, which {maker.path} writes")
    config = stage.configs[0]
    if stage.verb == "bundle":
        bundling.check(config)
    elif stage.verb == "evaluate":
        check(config)
        stage.says.append(counts.to_evaluate(config))
    columns = Columns.parse(stage.value("columns") or "{}")
    there = {key: stage.value(key) for key, _ in stage.inputs(PROBLEMS)}
    problems = {
        key: questions(paths, columns) if key == AGAINST else read(Problem, paths, columns)
        for key, paths in there.items()
    }
    if stage.verb == "bundle" and "problems" in problems:
        stage.says.extend(counts.to_bundle(config, problems, columns.sources))
    for _, path in stage.inputs(ROLLOUTS):
        read(Rollout, path, columns)
    for _, path in stage.inputs(BUNDLES):
        Bundles.open(path, or_problems=getattr(config, "plain_share", 0) == 1)
    for _, path in stage.inputs([MATCHED]):
        budget_of(path, int(stage.value("max_steps") or 0))
    columns.check_met()
    engine = config if isinstance(config, EngineArguments) else EngineArguments()
    for key, model in stage.inputs(MODELS):
        if key != "tokenizer":
            check_engine(model, engine)
        if key in ASKED:
            Prompter(
                load_tokenizer(model),
                prompt_of(
                    model,
                    stage.value("prompt"),
                    template_kwargs=stage.value("chat_template_kwargs"),
                    override=bool(stage.value("prompt_override")),
                ),
            )
    return []


def _check_prompt(stage: Planned) -> list[str]:
    """The prompt must be that of the model, even if the model is still to be trained; with
    prompt_override it may be another.
    """
    if stage.value("prompt_override"):
        return []
    given = stage.value("prompt")
    own = PromptConfig.load(given)
    for key in ("model_name_or_path", "sft", "grpo", "no_references"):
        maker = stage.coming.get(str(stage.value(key)))
        if maker and not maker.errors and given and own != prompt_to_come(maker):
            return [f"{stage.path}: prompt {given} differs from that of {maker.path}, whose model it asks"]
    return []


def prompt_to_come(stage: Planned) -> PromptConfig:
    """The prompt of the model that a training will write."""
    if given := stage.value("prompt"):
        return PromptConfig.load(given)
    model = str(stage.value("model_name_or_path"))
    if maker := stage.coming.get(model):
        return prompt_to_come(maker)
    return PromptConfig.load(model_file(model, "prompt.yaml"))


def _check_k(stage: Planned, written: dict[str, Planned]) -> list[str]:
    """A bundle needs as many rollouts as it has references; those of several files add up."""
    said = []
    for key in ROLLOUTS if stage.verb == "bundle" else ():
        makers = [written.get(os.path.normpath(path)) for path in paths_in(str(stage.value(key)))]
        least = stage.value("k_min") or stage.value("k")
        known = [(maker, maker.value("samples_per_problem")) for maker in makers if maker]
        samples = sum(count for _, count in known if count)
        if known and len(known) == len(makers) and all(count for _, count in known) and samples < least:
            first, *others = [str(maker.path) for maker, _ in known]
            makes = f"{first} makes" + (f", together with {' and '.join(others)}," if others else "")
            said.append(f"{stage.path}: k {least}, but {makes} {samples} samples per problem; lower k")
    return said
