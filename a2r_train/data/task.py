"""The task: how prompts are rendered and answers judged. It is set once, and stays with the data.

A stage that writes data puts `task.yaml` beside it, and the stages that read this data take prompt, verifier
and columns from there. `a2r_train.config` reads the `task.yaml` that a recipe folder may have.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from a2r_train.config import check_keys, load_yaml, mapping_in
from a2r_train.errors import InputError
from a2r_train.models import model_file
from a2r_train.paths import paths_in, shards
from a2r_train.prompts import OF_ROLLOUTS, PromptConfig
from a2r_train.records import write_text
from a2r_train.verify import traits_of
from a2r_train.verify.compare import LEAVE_OUT
from a2r_train.verify.traits import ASKED, PROMPT_FILES, SIGNS

log = logging.getLogger(__name__)
FILE = "task.yaml"
CHUNKS = "chunks"  # the folder of the shards that explore writes


@dataclass(frozen=True)
class Task:
    """What stages downstream inherit; `place` is the file that says so, "" where there is none.

    verifier "" means each row's own. columns map fields to columns of the problem files.
    """

    prompt: PromptConfig | None = None
    verifier: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    place: str = ""

    def write(self, folder: str | Path) -> None:
        """Put the task beside the data in a folder."""
        prompt = asdict(self.prompt) if self.prompt else None
        content = {"prompt": prompt, "verifier": self.verifier, "columns": dict(self.columns)}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_text(Path(folder) / FILE, text)


def task_of(*data: str) -> Task:
    """The task that goes with data files, comma-separated; an empty one for data without a task.

    Raises InputError if two of the files have different tasks.
    """
    first = Task()
    for folder in folders_of(*data):
        found = _in(folder)
        if found.place and not first.place:
            first = found
        for key in ("verifier", "prompt"):
            if found.place and getattr(found, key) != getattr(first, key):
                raise InputError(
                    f"{first.place} and {found.place} differ in {key}; data of one stage needs one task: "
                    "make both files say the same"
                )
    return first


def inherit(value: str, key: str, task: Task) -> str:
    """The recipe's value of a key, or else the task's. Raises InputError if both are set and differ."""
    carried: str = getattr(task, key)
    if value and task.place and value != carried:
        raise InputError(
            f"{key} is {value!r} here, but {carried or 'that of each row'!r} in {task.place}, with which the "
            "data was made; remove it here, or change it there"
        )
    return value or carried


def prompt_of(
    model: str,
    path: str = "",
    *,
    task: Task | None = None,
    template_kwargs: str | Mapping[str, Any] = "",
    override: bool = False,
) -> PromptConfig:
    """The prompt to use with a model: the recipe's, the one it was trained with, that of the data, or the
    default.

    `template_kwargs` are the recipe's arguments of the chat template, as an object or its JSON. Raises
    InputError if the recipe differs from the data's task, or from the prompt of a trained checkpoint, which
    only works with its own. `override` allows the latter.
    """
    task = task or Task()
    saved = model_file(model, "prompt.yaml") if model else None
    trained = PromptConfig.load(saved) if saved else None
    prompt = PromptConfig.load(path) if path else _brought(model, trained, task, override)
    if arguments := parse_mapping(template_kwargs, "chat_template_kwargs"):
        if prompt.chat_template_kwargs and prompt.chat_template_kwargs != arguments:
            raise InputError(
                f"chat_template_kwargs are {arguments} here, but {prompt.chat_template_kwargs} in "
                f"{path or saved or task.place}; set them in one place"
            )
        prompt = replace(prompt, chat_template_kwargs=arguments)
    said = path or "chat_template_kwargs"
    if path and task.prompt and (key := difference(prompt, task.prompt)):
        again = "" if key in OF_ROLLOUTS else ", or bundle the rollouts again with this prompt"
        raise InputError(
            f"{said}: {key} differs from {task.place}, with which the data was made; remove the key "
            f"`prompt`{again}"
        )
    if arguments and task.prompt and arguments != task.prompt.chat_template_kwargs:
        raise InputError(f"{said} differ from {task.place}, with which the data was made; remove them here")
    if trained and not override and (key := difference(prompt, trained)):
        raise InputError(
            f"{said}: {key} differs from the prompt that {model} was trained with; use {saved}, or set "
            "prompt_override: true if you mean to train it on another"
        )
    return prompt


def explorer_prompt_of(explorer: str, synthesizer: PromptConfig, is_given: bool) -> PromptConfig:
    """The prompt of the explorer in a pair: its own, or the synthesizer's if it has none, as in its training,
    or if that one is given by the user.
    """
    brought = None if is_given else model_file(explorer, "prompt.yaml")
    return PromptConfig.load(brought) if brought else synthesizer


def within(prompt: PromptConfig, most_prompt_tokens: int) -> PromptConfig:
    """The prompt with its budget cut to what a model's context leaves beside a completion; a reference may
    take a fifth of it. Unchanged if that leaves nothing.
    """
    if not 0 < most_prompt_tokens < prompt.max_prompt_tokens:
        return prompt
    shortest = min(prompt.max_reference_tokens, max(prompt.min_reference_tokens, most_prompt_tokens // 5))
    return replace(prompt, max_prompt_tokens=most_prompt_tokens, max_reference_tokens=shortest)


def _brought(model: str, trained: PromptConfig | None, task: Task, override: bool) -> PromptConfig:
    """The prompt if the recipe names none: a checkpoint's own, with a warning if the data has another, or the
    data's if it is to override the checkpoint's.
    """
    if not trained or not task.prompt:
        return trained or task.prompt or PromptConfig()
    key = difference(trained, task.prompt)
    if key and not override:
        _tell_own(model, key, task.place)
    return task.prompt if override else trained


@cache
def _tell_own(model: str, key: str, place: str) -> None:
    """Warn once, however often a stage asks for the prompt."""
    log.warning(
        "%s is asked with the prompt that it was trained with, not with that of %s: %s differs; "
        "to use the data's, set prompt_override: true",
        model,
        place,
        key,
    )


def check_asked(verifiers: Iterable[str], prompt: PromptConfig, template: str) -> None:
    """Raise InputError for a template that asks for a box if a verifier reads another place.

    template: `explorer_template` or `synthesizer_template`.
    """
    if says := box_unread(verifiers, prompt, template):
        raise InputError(says)


def box_unread(verifiers: Iterable[str], prompt: PromptConfig, template: str) -> str:
    """What is wrong with such a template, and how to fix it; "" if nothing is."""
    text = getattr(prompt, template).lower() + prompt.system.lower()
    for verifier in sorted(verifiers):
        place = traits_of(verifier).answer_in
        asks = any(sign in text for sign in SIGNS[place]) or prompt.answer_pattern
        if not asks and SIGNS["box"][0] in text:
            return (
                f"the prompt's {template} asks for \\boxed{{}}, which {verifier} does not read; "
                f"make it say: {ASKED[place]}; or set prompt: {PROMPT_FILES[place]}"
            )
    return ""


def difference(one: PromptConfig, other: PromptConfig) -> str:
    """The first key in which two prompts differ, or ""."""
    ours, theirs = asdict(one), asdict(other)
    return next((key for key in ours if ours[key] != theirs[key]), "")


def parse_mapping(value: str | Mapping[str, Any], key: str) -> dict[str, Any]:
    """A mapping, or the text of one. Raises InputError for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    found = mapping_in(value or "{}")
    if found is None:
        raise InputError(f"{key} is {value!r}; expected an object, such as {{enable_thinking: false}}")
    return found


def _files(value: str) -> list[str]:
    return [file for path in paths_in(value) for file in shards(path) if Path(file).is_file()]


def folders_of(*data: str) -> list[Path]:
    """The folders that data files, comma-separated, were written to."""
    return list(dict.fromkeys(_folder(file) for value in data for file in _files(value)))


def _folder(file: str) -> Path:
    """The folder of a file's task: beside the file, or beside the folder of explore's chunks."""
    parent = Path(file).parent
    return parent.parent if parent.name == CHUNKS else parent


def _in(folder: Path) -> Task:
    place = folder / FILE
    if not place.is_file():
        return Task()
    content = load_yaml(str(place))
    given: Any = content.get("prompt")
    if isinstance(given, str) or content.keys() & {"chat_template_kwargs", LEAVE_OUT}:
        return Task()  # of a recipe folder that also holds data: its stages read it as their keys
    check_keys(content, {"prompt", "verifier", "columns"}, str(place))
    return Task(
        PromptConfig.of(given, str(place)) if given else None,
        str(content.get("verifier") or ""),
        dict(content.get("columns") or {}),
        str(place),
    )
