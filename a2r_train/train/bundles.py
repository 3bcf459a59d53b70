"""What is trained and validated on: bundles read, checked, and rendered once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from a2r_train.data.read import read
from a2r_train.data.rollouts import check_references
from a2r_train.data.task import prompt_of, task_of
from a2r_train.errors import InputError
from a2r_train.models import context_length, load_tokenizer
from a2r_train.prompts import Chat, Prompter
from a2r_train.records import Bundle, seed_of
from a2r_train.train.arguments import BundleArguments, ModelArguments, SynthesizerGRPOConfig, mapping
from a2r_train.train.model import check_model
from a2r_train.verify import check_gold

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingBundle:
    """A bundle with the chat that shows it; without references it is the problem alone."""

    bundle: Bundle
    chat: Chat
    prompt_tokens: int
    cut_references: int
    shows_references: bool


@dataclass(frozen=True)
class TrainingBundles:
    """All of them, how they were rendered, and the model's context in tokens."""

    rows: list[TrainingBundle]
    prompter: Prompter
    context: int

    @property
    def bundles(self) -> list[Bundle]:
        return [row.bundle for row in self.rows]

    @property
    def plain(self) -> frozenset[str]:
        """Ids of the bundles that are shown without references."""
        return frozenset(row.bundle.id for row in self.rows if not row.shows_references)

    @property
    def longest_prompt(self) -> int:
        return max(row.prompt_tokens for row in self.rows)

    @property
    def cut_references(self) -> int:
        return sum(row.cut_references for row in self.rows)


def load_bundles(
    data: BundleArguments,
    model: ModelArguments,
    trust_remote_code: bool = False,
    template_kwargs: Mapping[str, Any] | None = None,
) -> TrainingBundles:
    """Read, check and render the bundles; loads the tokenizer and no weights, and runs no code of the model
    unless told. `template_kwargs` are the recipe's own arguments of the chat template.

    Raises InputError for a broken bundle, an unparsable gold answer, a prompt over budget, and for a model
    that cannot be trained.
    """
    if not 0 <= data.plain_share <= 1:
        raise InputError(f"plain_share is {data.plain_share}; expected a share from 0 to 1")
    check_model(model, trust_remote_code)
    name = str(model.model_name_or_path)
    bundles = read(Bundle, data.bundles)[: data.max_bundles or None]
    check_gold(bundles)
    check_references(bundles, data.bundles)
    task = task_of(data.bundles)
    prompt = prompt_of(
        name, data.prompt, task=task, template_kwargs=template_kwargs or "", override=data.prompt_override
    )
    prompter = Prompter(load_tokenizer(name), prompt)
    rows = [_rendered(prompter, bundle, data.plain_share) for bundle in bundles]
    return TrainingBundles(rows, prompter, context_length(name))


def _rendered(prompter: Prompter, bundle: Bundle, plain_share: float) -> TrainingBundle:
    """The same bundles are plain in every run: their ids decide."""
    if seed_of(0, "plain", bundle.id) < plain_share * 2**32:
        chat = prompter.explorer(bundle.problem)
        return TrainingBundle(bundle, chat, len(prompter.token_ids(chat)), 0, shows_references=False)
    rendered = prompter.synthesizer(bundle.problem, bundle.references)
    return TrainingBundle(
        bundle, rendered.chat, rendered.prompt_tokens, rendered.cut_references, shows_references=True
    )


def load_validation(
    data: BundleArguments, args: SynthesizerGRPOConfig, model: ModelArguments, training: TrainingBundles
) -> TrainingBundles | None:
    """The validation bundles that fill batches, shown as the training bundles are; None without any.

    Raises InputError as `load_bundles`, for a problem that is trained on, for a prompt that leaves no room to
    answer, and for too few bundles.
    """
    if not (path := args.validation):
        return None
    validation = load_bundles(
        replace(data, bundles=path, max_bundles=0),
        model,
        args.trust_remote_code,
        mapping(args.chat_template_kwargs),
    )
    trained = {bundle.problem for bundle in training.bundles}
    if both := [bundle.id for bundle in validation.bundles if bundle.problem in trained]:
        raise InputError(
            f"{path}: the problem of bundle {both[0]!r} is trained on, as are {len(both)} in all"
        )
    needed = validation.longest_prompt + int(args.max_completion_length or 0)
    check_context(needed, f"{path}: the longest prompt with its completion", validation.context)
    if not (whole := _in_whole_batches(args, len(validation.rows))):
        raise InputError(f"{path}: its bundles do not fill a batch; lower per_device_eval_batch_size")
    if whole < len(validation.rows):
        count = len(validation.rows)
        log.info("%s: the first %d of %d bundles, which fill whole batches", path, whole, count)
    return replace(validation, rows=validation.rows[:whole])


def _in_whole_batches(args: SynthesizerGRPOConfig, bundles: int) -> int:
    """So many of the bundles fill batches.

    TRL takes the mean over batches: the bundles of a short one would weigh more, and several processes fill
    it up. A short one that is alone in one process is right as it is.
    """
    a_batch = max(1, args.per_device_eval_batch_size * args.world_size // args.eval_completions)
    return bundles // a_batch * a_batch or (bundles if args.world_size == 1 else 0)


def check_context(tokens: int, what: str, context: int) -> None:
    """Raise InputError if so many tokens do not fit the model."""
    if tokens > context:
        raise InputError(
            f"{what} is {tokens} tokens long, over the model's context of {context}; "
            "lower max_prompt_tokens or the completion"
        )
