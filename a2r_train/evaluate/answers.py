"""What the rows need generated, each piece once: kept by what the model is, what it was asked, and how it was
sampled.

A chunk's file is named by a hash of the model's files, of the chats and golds of its bundles, and of the
sampling. So a run that was killed goes on where it was, an added row computes only itself, two rows that ask
the same share one file, and nothing is taken for what it is not: not after a checkpoint was trained anew, nor
with other bundles under the old name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import track

from a2r_train import __version__
from a2r_train.data.read import read
from a2r_train.data.task import prompt_of, task_of
from a2r_train.engines import Engine, Sampling, hardware, load_engine, switched
from a2r_train.engines.base import chat_key
from a2r_train.engines.judged import judged_samples
from a2r_train.errors import InputError
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.templates import TEMPLATES
from a2r_train.evaluate.verdict_words import with_probabilities
from a2r_train.inference.synthesise import synthesizer_chat
from a2r_train.models import (
    Size,
    context_length,
    load_tokenizer,
    model_file,
    model_hash,
    size_of,
    tokenizer_hash,
)
from a2r_train.prompts import Chat, PromptConfig, Prompter
from a2r_train.records import Bundle, Synthesis, row_of, write, write_text
from a2r_train.verify import judge_all

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
MOST_CHARACTERS = 250_000_000  # of rendered chats in memory: a large evaluation renders some of them twice


@dataclass(frozen=True)
class Task:
    """What a model is asked of each bundle.

    view: `references`, `alone` (the problem only), or one of TEMPLATES. prompt: fields of PromptConfig that
    differ. budget: times max_completion_tokens. room: times max_prompt_tokens, if more than 1 and as far as
    the model's context goes.
    """

    name: str
    model: str
    view: str = "references"
    sampled: bool = False
    samples: int = 1
    budget: int = 1
    prompt: Mapping[str, Any] = field(default_factory=dict)
    room: Fraction = Fraction(1)

    @property
    def has_verdicts(self) -> bool:
        """Whether it is a synthesizer's own row over references, whose verdicts on them are told."""
        return self.name.startswith("synthesizer/") and self.view == "references" and self.budget == 1


class Answers(Protocol):
    """What the rows are made from: `Generator` asks the models, `Kept` reads what an earlier run left."""

    config: EvaluateConfig
    folder: Path
    seconds: dict[str, dict[str, Any]]

    def syntheses(self, task: Task, bundles: Sequence[Bundle]) -> list[Synthesis]: ...

    def parameters(self, model: str) -> int: ...

    def size(self, model: str) -> Size | None: ...

    def prompt(self, model: str) -> PromptConfig: ...


class Generator:
    """Makes syntheses or finds them below the output folder; one model is in memory at a time, and only if
    one is missing.
    """

    def __init__(self, config: EvaluateConfig, folder: Path) -> None:
        self.config, self.folder = config, folder / "syntheses"
        self.loaded: Engine | None = None
        self.models: Sequence[
            str
        ] = ()  # all that will be asked: one start of vllm serves a base and its adapters
        self.made = 0  # chunks that were not there
        self.tokenizers: dict[
            str, Any
        ] = {}  # by hash: a base and what was trained from it share one, and what it rendered
        self.prompter = cache(lambda tokenizer, prompt: Prompter(self.tokenizers[tokenizer], prompt))
        self.rendered: dict[
            Any, Chat
        ] = {}  # many tasks ask the same, and most are rendered before the first is asked
        self.characters = 0  # of those chats
        self.identity = cache(self._identity)
        self.seconds: dict[str, dict[str, Any]] = {}  # by task: time, answers, device, batch size
        self.files: dict[str, list[str]] = {}  # by task, below the output folder
        self.reasons: dict[Path, list[str]] = {}  # by file: why each of its answers ended
        self.counts: dict[str, int] = {}
        self.sizes: dict[str, Size | None] = {}

    def chats(self, task: Task, bundles: Sequence[Bundle]) -> dict[str, Chat]:
        """What the model reads, by bundle. Raises InputError for a prompt that cannot be made to fit."""
        prompt = replace(prompt_for(self.config, task.model), **task.prompt)
        prompt = replace(prompt, max_prompt_tokens=self._room(task, prompt.max_prompt_tokens))
        prompter = self.prompter(self._tokenizer(task.model), prompt)
        return {bundle.id: self._chat(prompter, task.view, bundle) for bundle in bundles}

    def syntheses(self, task: Task, bundles: Sequence[Bundle]) -> list[Synthesis]:
        """Judged answers to the bundles, in the order bundle, sample."""
        chats = self.chats(task, bundles)
        found: list[Synthesis] = []
        files: list[str] = []
        before = self.made
        timing = {"seconds": 0.0, "answers": 0, "device": "", "batch_size": 0}
        for at in _bar(task.name, range(0, len(bundles), self.config.chunk_bundles)):
            part = bundles[at : at + self.config.chunk_bundles]
            path = self._kept(task, part, chats) or self._made(task, part, chats, at)
            made = read(Synthesis, str(path))
            self.reasons[path] = [synthesis.finish_reason for synthesis in made]
            found += made
            files.append(path.relative_to(self.folder.parent).as_posix())
            one = json.loads(_timing_path(path).read_text())
            timing = {**one, **{key: timing[key] + one[key] for key in ("seconds", "answers")}}
        if self.made > before:  # what was kept is no news
            log.info("%s: %d bundles", task.name, len(bundles))
        if self.files.setdefault(task.name, files) != files:
            raise ValueError(
                f"task {task.name!r} asked two things; the manifest tells tasks apart by their names"
            )
        self.seconds[task.name] = timing
        return found

    def parameters(self, model: str) -> int:
        """Parameters of a model, 0 where not known; kept, so that a finished run loads nothing."""
        path = self.folder / f"parameters-{self.identity(model)[:16]}.json"
        if not path.exists():
            self._engine(model)
        self.counts[model] = int(json.loads(path.read_text())["parameters"])
        return self.counts[model]

    def size(self, model: str) -> Size | None:
        """What the FLOPs of a model depend on; None where not known."""
        self.sizes[model] = size_of(model)
        return self.sizes[model]

    def prompt(self, model: str) -> PromptConfig:
        """What a model is asked with, and how its texts are read."""
        return prompt_for(self.config, model)

    def write_manifest(self) -> None:
        """Say which files hold the syntheses of each task, and what is known of the models: enough to score
        them again.
        """
        sizes = {model: size and asdict(size) for model, size in self.sizes.items()}
        manifest: dict[str, Any] = {"tasks": self.files, "parameters": self.counts, "sizes": sizes}
        prompts = {model: self.prompt(model) for model in self.counts}
        if any(prompt.sections or prompt.answer_pattern for prompt in prompts.values()):
            manifest["prompts"] = {model: asdict(prompt) for model, prompt in prompts.items()}
        if (of_references := prompt_of_references(self.config)).answer_pattern:
            manifest["prompt_of_references"] = asdict(of_references)
        write_text(self.folder.parent / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def _kept(self, task: Task, part: Sequence[Bundle], chats: Mapping[str, Chat]) -> Path | None:
        """The answers of an earlier run, if it made these. Verifiers and patterns may have changed since, so
        they are judged anew.
        """
        path = next(self.folder.glob(f"*/*-{self._key(task, part, chats)}.jsonl"), None)
        if path is None:
            return None
        stored = read(Synthesis, str(path))
        asked = [bundle for bundle in part for _ in range(task.samples)]
        anew = judged_anew(self.prompt(task.model), stored, asked)
        if changed := sum(a != b for a, b in zip(stored, anew, strict=True)):
            log.warning(
                "%s: %d of %d answers are judged otherwise than by the run before",
                task.name,
                changed,
                len(anew),
            )
            write(anew, path)
        return path

    def _made(self, task: Task, part: Sequence[Bundle], chats: Mapping[str, Chat], at: int) -> Path:
        key = self._key(task, part, chats)
        path = self.folder / task.name.replace("/", "-") / f"{at:06d}-{key}.jsonl"
        self.made += 1
        engine = self._engine(task.model)
        prompter = Prompter(engine.tokenizer, prompt_for(self.config, task.model))
        began = time.monotonic()
        samples = judged_samples(
            engine, prompter, part, chats, self._sampling(task), task.samples, self.config.seed
        )
        made = [sample.synthesis(bundle_id, at) for bundle_id, at, sample in samples]
        timing = {"seconds": round(time.monotonic() - began, 3), "answers": len(made)}
        if prompter.config.sections and task.has_verdicts:
            made = with_probabilities(engine, prompter, part, chats, made)
        place = {"device": hardware(engine), "batch_size": self.config.batch_size}
        write_text(_timing_path(path), json.dumps(timing | place) + "\n")
        write(made, path)
        return path

    def _chat(self, prompter: Prompter, view: str, bundle: Bundle) -> Chat:
        shown = () if view == "alone" else tuple(bundle.references)
        key = (prompter, view, bundle.problem, shown)
        if key not in self.rendered:
            chat = _render(prompter, view, bundle)
            self.characters += len(chat[-1]["content"])
            if self.characters > MOST_CHARACTERS:
                self.rendered, self.characters = {}, 0
            self.rendered[key] = chat
        return self.rendered[key]

    def _room(self, task: Task, usual: int) -> int:
        """The prompt's budget; a server's context is not known, so it is not asked for more than usual."""
        if task.room <= 1 or self.config.engine == "openai":
            return usual
        return max(
            usual,
            min(context_length(task.model) - self.config.max_completion_tokens, ceil(usual * task.room)),
        )

    def _key(self, task: Task, part: Sequence[Bundle], chats: Mapping[str, Chat]) -> str:
        asked = [(b.id, b.answer, b.verifier, chat_key(chats[b.id])) for b in part]
        how = (asdict(self._sampling(task)), task.samples, self.config.seed, self.config.dtype, __version__)
        return hashlib.sha256(json.dumps([self.identity(task.model), how, asked]).encode()).hexdigest()[:16]

    def _sampling(self, task: Task) -> Sampling:
        temperature = self.config.temperature if task.sampled else 0.0
        return Sampling(temperature, max_completion_tokens=task.budget * self.config.max_completion_tokens)

    def _tokenizer(self, model: str) -> str:
        """The hash of the model's tokenizer, which is loaded."""
        if (key := tokenizer_hash(model)) not in self.tokenizers:
            self.tokenizers[key] = load_tokenizer(model)
        return key

    def _identity(self, model: str) -> str:
        """The files of a local model; a served one has its name alone."""
        served = self.config.engine == "openai"
        return hashlib.sha256(f"served {model}".encode()).hexdigest() if served else model_hash(model)

    def _engine(self, model: str) -> Engine:
        if self.loaded is None or self.loaded.name != model:
            self.loaded = switched(self.loaded, model)  # None frees the memory before the next one comes
            self.loaded = self.loaded or load_engine(model, self.config, others=self.models)
            kept = {"model": model, "parameters": self.loaded.parameters}
            write_text(self.folder / f"parameters-{self.identity(model)[:16]}.json", json.dumps(kept) + "\n")
        return self.loaded


def judged_anew(
    prompt: PromptConfig, stored: Sequence[Synthesis], asked: Sequence[Bundle]
) -> list[Synthesis]:
    """The texts with answers and verdicts by the verifiers and the prompt of today; `asked`: the bundle of
    each.
    """
    texts = [(prompt.judged_text(s.text), b.answer, b.verifier) for s, b in zip(stored, asked, strict=True)]
    anew = judge_all(texts, [row_of(bundle) for bundle in asked])
    return [replace(s, answer=j.answer, verdict=j.verdict) for s, j in zip(stored, anew, strict=True)]


def prompt_of_references(config: EvaluateConfig) -> PromptConfig:
    """By which the answers in references and rollouts are read: that of the data, else the recipe's."""
    return task_of(config.bundles).prompt or prompt_of("", config.prompt)


def prompt_for(config: EvaluateConfig, model: str) -> PromptConfig:
    """The recipe's prompt or the model's own; else that of the trained ones, as rows that are compared read
    the same.

    Raises InputError where the trained ones differ, and as `prompt_of`.
    """
    task, kwargs = task_of(config.bundles), config.chat_template_kwargs
    override = config.prompt_override
    if config.prompt or model_file(model, "prompt.yaml"):
        return prompt_of(model, config.prompt, task=task, template_kwargs=kwargs, override=override)
    named = {key: getattr(config, key) for key in ("sft", "grpo", "no_references")}
    brought = {
        key: prompt_of(name) for key, name in named.items() if name and model_file(name, "prompt.yaml")
    }
    first = next(iter(brought), "")
    if other := next((key for key in brought if brought[key] != brought[first]), ""):
        raise InputError(
            f"{first} {named[first]} and {other} {named[other]} were trained with "
            "different prompts (their prompt.yaml), and "
            f"{model} has none of its own; evaluate them one by one"
        )
    return prompt_of(named.get(first, ""), task=task, template_kwargs=kwargs, override=override)


def _render(prompter: Prompter, view: str, bundle: Bundle) -> Chat:
    if template := TEMPLATES.get(view):
        return prompter.synthesizer(bundle.problem, bundle.references, template).chat
    return synthesizer_chat(prompter, bundle, view != "alone")


def _bar(name: str, chunks: Sequence[int]) -> Iterable[int]:
    """A bar over the chunks, on a terminal or in a notebook."""
    console = Console(stderr=True)
    return track(chunks, name, console=console, transient=True, disable=not console.is_terminal)


def _timing_path(chunk: Path) -> Path:
    """Times are kept apart from what was generated, which is the same each time."""
    return chunk.with_name(f"timing-{chunk.stem}.json")
