"""The bundles to train and validate on: read, checked, and rendered once."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, overload

import pyarrow.compute as pc

from a2r_train.data.bundles import Bundles, are_problems
from a2r_train.data.lengths import fingerprint
from a2r_train.data.task import check_asked, prompt_of, task_of
from a2r_train.data.trained_on import problem_hashes
from a2r_train.errors import InputError
from a2r_train.models import context_length, load_tokenizer
from a2r_train.output import DONE
from a2r_train.prompts import Chat, PromptConfig, Prompter
from a2r_train.records import Bundle, seed_of
from a2r_train.train.arguments import BundleArguments, ModelArguments, SynthesizerGRPOConfig
from a2r_train.train.model import check_model

log = logging.getLogger(__name__)
SAMPLE = 1000  # bundles rendered before a training starts, if not all are in memory


@dataclass(frozen=True)
class TrainingBundle:
    """A bundle with the chat that shows it; without references it shows the problem alone."""

    bundle: Bundle
    chat: Chat
    prompt_tokens: int
    cut_references: int
    shows_references: bool


class Rows(Sequence[TrainingBundle]):
    """Rendered bundles: all at once if they are in memory, otherwise each when it is asked for."""

    def __init__(self, bundles: Bundles, prompter: Prompter, plain_share: float) -> None:
        self.bundles, self.prompter, self.plain_share = bundles, prompter, plain_share
        self._made = [self.render(bundle) for bundle in bundles.held]

    def first(self, count: int) -> Rows:
        """The first `count`."""
        return Rows(self.bundles.first(count), self.prompter, self.plain_share)

    def render(self, bundle: Bundle) -> TrainingBundle:
        """Raises InputError for a prompt over the budget."""
        return _rendered(self.prompter, bundle, self.plain_share)

    def __len__(self) -> int:
        return len(self.bundles)

    @overload
    def __getitem__(self, at: int) -> TrainingBundle: ...
    @overload
    def __getitem__(self, at: slice) -> list[TrainingBundle]: ...
    def __getitem__(self, at: int | slice) -> TrainingBundle | list[TrainingBundle]:
        if self._made:
            return self._made[at]
        if isinstance(at, slice):
            return [self.render(bundle) for bundle in self.bundles[at]]
        return self.render(self.bundles[at])


@dataclass(frozen=True)
class TrainingBundles:
    """All bundles, how they are rendered, and the model's context in tokens.

    `sample` has all bundles if they are in memory, otherwise some spread over them: it stands for all of them
    where reading all would take long. longest_prompt and cut_references cover all bundles if `a2r bundle` has
    measured them with this tokenizer and prompt, otherwise only the sample.
    """

    rows: Rows
    prompter: Prompter
    context: int
    sample: Sequence[TrainingBundle]
    longest_prompt: int
    cut_references: int

    @property
    def bundles(self) -> Bundles:
        return self.rows.bundles

    @property
    def plain(self) -> frozenset[str]:
        """Ids of the bundles shown without references."""
        share = self.rows.plain_share
        ids = self.bundles.column("id").to_pylist() if share else []
        return frozenset(identity for identity in ids if _is_plain(identity, share))

    def template_arguments(self) -> dict[str, Any]:
        """What TRL needs to render the same prompts: arguments of the chat template, and the day it shows."""
        return self.prompter.template_arguments(self.sample[0].chat)


def open_bundles(data: BundleArguments) -> Bundles:
    """Open the training bundles. A file of problems is enough if `plain_share` is 1.

    Raises InputError as `read` does.
    """
    if data.plain_share < 1 and are_problems(data.bundles):
        raise InputError(
            f"{data.bundles}: these are problems, without references; make bundles of them (a2r explore, "
            "then a2r bundle), or train without references (plain_share: 1)"
        )
    return Bundles.open(data.bundles, data.max_bundles, or_problems=data.plain_share == 1)


def load_bundles(
    data: BundleArguments,
    model: ModelArguments,
    trust_remote_code: bool = False,
    template_kwargs: str | Mapping[str, Any] = "",
    prompt: PromptConfig | None = None,
) -> TrainingBundles:
    """Read, check and render the bundles; loads the tokenizer but no weights, and runs the model's own code
    only if told to. `template_kwargs` are the recipe's own arguments of the chat template. `prompt` takes the
    place of the one that these bundles would have.

    Raises InputError for a broken bundle, an unparsable gold answer, a prompt over the budget, or a model
    that cannot be trained.
    """
    if not 0 <= data.plain_share <= 1:
        raise InputError(f"plain_share is {data.plain_share}; expected a share from 0 to 1")
    check_model(model, trust_remote_code)
    name = str(model.model_name_or_path)
    bundles = open_bundles(data)
    bundles.check()
    prompt = prompt or prompt_of_run(data, model, template_kwargs)
    template = "explorer_template" if data.plain_share == 1 else "synthesizer_template"
    check_asked(bundles.column("verifier").unique().to_pylist(), prompt, template)
    prompter = Prompter(load_tokenizer(name), prompt)
    return _opened(Rows(bundles, prompter, data.plain_share), context_length(name), name)


def prompt_of_run(
    data: BundleArguments, model: ModelArguments, template_kwargs: str | Mapping[str, Any] = ""
) -> PromptConfig:
    """The prompt by which the bundles are shown. Raises InputError as `prompt_of`."""
    return prompt_of(
        str(model.model_name_or_path),
        data.prompt,
        task=task_of(data.bundles),
        template_kwargs=template_kwargs,
        override=data.prompt_override,
    )


def _opened(rows: Rows, context: int, model: str) -> TrainingBundles:
    bundles, prompter = rows.bundles, rows.prompter
    sample: Sequence[TrainingBundle] = rows
    if bundles.mapped is not None:
        sample = [rows.render(bundle) for bundle in bundles.some(SAMPLE)]
        log.info("%s: %d bundles, read from disk during training", bundles.path, len(bundles))
    longest = max(row.prompt_tokens for row in sample)
    cut = sum(row.cut_references for row in sample)
    measured = measured_prompts(bundles.path, model, prompter) if bundles.mapped is not None else None
    if measured and not rows.plain_share:
        longest, cut = max(longest, measured["longest"]), measured["cut_references"]
    return TrainingBundles(rows, prompter, context, sample, longest, cut)


def _is_plain(identity: str, share: float) -> bool:
    """Decided by the id, so that the same bundles are plain in every run."""
    return seed_of(0, "plain", identity) < share * 2**32


def _rendered(prompter: Prompter, bundle: Bundle, plain_share: float) -> TrainingBundle:
    if _is_plain(bundle.id, plain_share):
        chat = prompter.explorer(bundle.problem)
        return TrainingBundle(bundle, chat, len(prompter.token_ids(chat)), 0, shows_references=False)
    rendered = prompter.synthesizer(bundle.problem, bundle.references)
    return TrainingBundle(
        bundle, rendered.chat, rendered.prompt_tokens, rendered.cut_references, shows_references=True
    )


def load_validation(
    data: BundleArguments, args: SynthesizerGRPOConfig, model: ModelArguments, training: TrainingBundles
) -> TrainingBundles | None:
    """The validation bundles that fill whole batches, shown as the training bundles are; None without any.

    Raises InputError as `load_bundles` does, and for a problem that is also trained on, a prompt that leaves
    no room for an answer, or too few bundles.
    """
    if not (path := args.validation):
        return None
    validation = load_bundles(
        replace(data, bundles=path, max_bundles=0),
        model,
        args.trust_remote_code,
        prompt=training.prompter.config,
    )
    trained_on = set(chain.from_iterable(map(problem_hashes, _problems(training.bundles))))
    if both := [b.id for b in validation.bundles if not trained_on.isdisjoint(problem_hashes(b.problem))]:
        raise InputError(
            f"{path}: {len(both)} bundles have a problem that is trained on, such as {both[0]!r}; remove them"
        )
    needed = validation.longest_prompt + int(args.max_completion_length or 0)
    check_context(needed, f"{path}: the longest prompt with its completion", validation.context)
    if not (whole := _in_whole_batches(args, len(validation.rows))):
        raise InputError(f"{path}: its bundles do not fill a batch; lower per_device_eval_batch_size")
    if whole < len(validation.rows):
        count = len(validation.rows)
        log.info("%s: using the first %d of %d bundles, which fill whole batches", path, whole, count)
    return replace(validation, rows=validation.rows.first(whole))


def _problems(bundles: Bundles) -> list[str]:
    return list(pc.unique(bundles.column("problem")).to_pylist())


def measured_prompts(path: str, model: str, prompter: Prompter) -> dict[str, int] | None:
    """What `a2r bundle` measured, if it used this model's tokenizer and prompt."""
    done = Path(path).parent / DONE
    if not done.is_file():
        return None
    found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8")).get("prompts") or {}
    return found if found.get("measured_with") == fingerprint(model, prompter.config) else None


def _in_whole_batches(args: SynthesizerGRPOConfig, bundles: int) -> int:
    """How many of the bundles fill whole batches.

    TRL takes the mean over batches: the bundles of a short batch would weigh more, and several processes
    would pad it. A single short batch in one process is correct as it is.
    """
    a_batch = max(1, args.per_device_eval_batch_size * args.world_size // args.eval_completions)
    return bundles // a_batch * a_batch or (bundles if args.world_size == 1 else 0)


def check_context(tokens: int, what: str, context: int) -> None:
    """Raise InputError if this many tokens do not fit the model's context."""
    if tokens > context:
        raise InputError(
            f"{what} is {tokens} tokens long, over the model's context of {context}; "
            "lower max_prompt_tokens or the completion"
        )
