"""What is trained on: bundles read, checked and rendered once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from a2r_train.data.read import read
from a2r_train.data.rollouts import check_references
from a2r_train.data.task import prompt_of
from a2r_train.errors import InputError
from a2r_train.models import base_of, check_weights, context_length, load_tokenizer, trust
from a2r_train.prompts import Chat, Prompter
from a2r_train.records import Bundle, seed_of
from a2r_train.train.arguments import BundleArguments, ModelArguments, TrainConfig, batch_and_steps
from a2r_train.verify import check_gold


@dataclass(frozen=True)
class Material:
    """Bundles with their rendered chats, which run parallel; lengths in tokens.

    `plain`: ids of those without references.
    """

    bundles: list[Bundle]
    chats: list[Chat]
    plain: frozenset[str]
    prompter: Prompter
    longest_prompt: int
    context: int
    cut_references: int


def load_material(data: BundleArguments, model: ModelArguments, trust_remote_code: bool = False) -> Material:
    """Read, check and render the bundles; loads the tokenizer and no weights, and runs no code of the model
    unless told.

    Raises InputError for a broken bundle, an unparsable gold answer, a prompt over budget, a model without
    weights, and for a revision other than main, as tokenizer, prompt, context and base would be those of
    main.
    """
    if not 0 <= data.plain_share <= 1:
        raise InputError(f"plain_share is {data.plain_share}; expected a share from 0 to 1")
    name = model.model_name_or_path
    if not name:
        raise InputError("model_name_or_path is missing; name a checkpoint folder or a model of the hub")
    if model.model_revision != "main":
        raise InputError(
            f"model_revision {model.model_revision} would move the weights alone; "
            "download it to a folder, and name that: "
            f"hf download {name} --revision {model.model_revision} --local-dir FOLDER"
        )
    check_weights(name)
    if base_of(name).endswith(".gguf"):
        raise InputError(
            f"{name}: a GGUF file cannot be trained; make a folder of it: "
            "a2r merge --model FILE --output_dir FOLDER"
        )
    if trust_remote_code:
        trust(name)
    bundles = read(Bundle, data.bundles)[: data.max_bundles or None]
    check_gold(bundles)
    check_references(bundles, data.bundles)
    prompter = Prompter(load_tokenizer(name), prompt_of(name, data.prompt))
    plain = frozenset(
        bundle.id for bundle in bundles if seed_of(0, "plain", bundle.id) < data.plain_share * 2**32
    )
    chats, lengths, cut = [], [], 0
    for bundle in bundles:
        if bundle.id not in plain:
            rendered = prompter.synthesizer(bundle.problem, bundle.references)
            chats.append(rendered.chat)
            lengths.append(rendered.prompt_tokens)
            cut += rendered.cut_references
        else:
            chats.append(prompter.explorer(bundle.problem))
            lengths.append(len(prompter.token_ids(chats[-1])))
    return Material(bundles, chats, plain, prompter, max(lengths), context_length(name), cut)


def check_context(tokens: int, what: str, context: int) -> None:
    """Raise InputError if so many tokens do not fit the model."""
    if tokens > context:
        raise InputError(
            f"{what} is {tokens} tokens long, over the model's context of {context}; "
            "lower max_prompt_tokens or the completion"
        )


def describe(
    config: dict[str, Any], args: TrainConfig, material: Material, trained: str, budget: str, rows: int
) -> str:
    """What a dry run shows: config, one example with the trained tokens between ⟦ and ⟧, token budget, steps.

    `rows` counts completions, over all steps of one epoch.
    """
    batch, steps = batch_and_steps(args, rows)
    shown = yaml.safe_dump(json.loads(json.dumps(config, default=str)), sort_keys=False, allow_unicode=True)
    example = material.prompter.text(material.chats[0])
    return (
        f"{shown}\n--- one example, the trained tokens between ⟦ and ⟧\n{example}⟦{trained}⟧\n\n--- budget\n"
        f"longest prompt {material.longest_prompt} tokens, {budget}, "
        f"model context {material.context} tokens; "
        f"{material.cut_references} references cut\n"
        f"at most {rows} completions an epoch, {batch} a step: {steps} steps\n"
    )
