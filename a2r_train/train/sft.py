"""Supervised fine-tuning of a synthesizer on verified answers to its own training bundles (TRL's
SFTTrainer).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from rich.console import Console
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from a2r_train import process
from a2r_train.config import check_least, parse
from a2r_train.data.read import read
from a2r_train.engines import EngineArguments, Sampling, check_engine, load_engine
from a2r_train.errors import InputError
from a2r_train.inference.synthesise import syntheses_of
from a2r_train.models import model_file
from a2r_train.process import leave
from a2r_train.prompts import THINK_CLOSE, THINK_OPEN, Chat, PromptConfig, Prompter
from a2r_train.records import CORRECT, Synthesis, seed_of, write
from a2r_train.train import preflight
from a2r_train.train.arguments import (
    BundleArguments,
    ModelArguments,
    batch_and_steps,
    check_launch,
    model_arguments,
    set_defaults,
)
from a2r_train.train.bundles import Material, check_context, describe, load_material
from a2r_train.train.estimate import report as estimate
from a2r_train.train.run import finish, open_folder, resolved, run_training
from a2r_train.train.targets import select, supplied_targets

log = logging.getLogger(__name__)


@dataclass
class SynthesizerSFTConfig(SFTConfig):
    """TRL's, with the targets. `max_length` is unset, so that nothing is cut; packing needs it."""

    max_length: int | None = field(
        default=None, metadata={"help": "longest row in tokens; a longer row is an error"}
    )
    targets: str = field(
        default="", metadata={"help": "supplied targets (JSONL of syntheses); empty samples them"}
    )
    teacher: str = field(
        default="", metadata={"help": "the model that answers the bundles; empty is the base itself"}
    )
    target_engine: str = field(
        default="transformers", metadata={"help": "what draws them: transformers or vllm"}
    )
    target_samples: int = field(default=4, metadata={"help": "answers drawn for each bundle"})
    target_temperature: float = field(default=1.0, metadata={"help": "of these answers"})
    max_targets_per_problem: int = field(
        default=2, metadata={"help": "verified answers kept, hardest bundles first"}
    )
    max_target_tokens: int = field(default=1024, metadata={"help": "a longer answer is no target"})
    target_batch_size: int = field(
        default=64, metadata={"help": "of transformers: answers generated at once"}
    )

    def __post_init__(self) -> None:
        set_defaults(self)
        if self.completion_only_loss is False:
            raise InputError(
                "completion_only_loss: false is not served, as the prompt is never trained on; remove the key"
            )
        if self.assistant_only_loss:
            raise InputError(
                "assistant_only_loss is not served, as the completion alone is trained on; remove the key"
            )
        if self.eval_strategy != "no" or self.eval_on_start:
            raise InputError(
                "eval_strategy and eval_on_start are not served: SFT has no validation set; remove the keys"
            )
        check_least(
            self, target_samples=1, max_targets_per_problem=1, max_target_tokens=1, target_batch_size=1
        )
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.completion_only_loss = True


ARGUMENTS = [BundleArguments, SynthesizerSFTConfig, ModelArguments]


def main(argv: Sequence[str] | None = None) -> int:
    """Read the recipe and train; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return process.run(lambda: train(*parse(ARGUMENTS, argv)))


def train(data: BundleArguments, args: SynthesizerSFTConfig, model: ModelArguments) -> None:
    """Sample or read targets, train on them, and save.

    Raises InputError for wrong input, and where a check of the preflight is red.
    """
    material, supplied = _read(data, args, model)
    preflight.require(_checks(args, model, material, supplied))
    if data.dry_run:
        sys.stdout.write(_dry_run(resolved(data, args, model), args, material, supplied))
        longest = max((material.prompter.count(t.text) for t in supplied), default=args.max_target_tokens)
        estimate.show(args, model, material, longest, _rows(args, material, supplied), Console())
    elif not open_folder(data, args, model, material):
        _train(data, args, model, material, supplied or _sampled(args, model, material))


def checks(data: BundleArguments, args: SynthesizerSFTConfig, model: ModelArguments) -> list[preflight.Check]:
    """The preflight alone. Raises InputError where data or model cannot be read."""
    return _checks(args, model, *_read(data, args, model))


def _read(
    data: BundleArguments, args: SynthesizerSFTConfig, model: ModelArguments
) -> tuple[Material, list[Synthesis]]:
    """The bundles, and the supplied targets, measured."""
    check_launch(args)
    if args.packing and args.max_length is None:
        raise InputError("packing: set max_length, the length of a packed row in tokens")
    if args.target_engine not in ("transformers", "vllm"):
        raise InputError(f"target_engine {args.target_engine!r}: expected transformers or vllm")
    material = load_material(data, model, args.trust_remote_code)
    supplied = supplied_targets(args.targets, material.bundles) if args.targets else []
    if args.teacher or not supplied:
        check_engine(_teacher(args, model), EngineArguments(engine=args.target_engine))
    if not supplied:
        _check_teacher(args.teacher, material)
    training_rows(material, supplied, args.max_length)
    return material, supplied


def _checks(
    args: SynthesizerSFTConfig, model: ModelArguments, material: Material, supplied: Sequence[Synthesis]
) -> list[preflight.Check]:
    _, steps = batch_and_steps(args, _rows(args, material, supplied))
    return preflight.preflight(args, model, material, None if supplied else args.max_target_tokens, steps)


def _rows(args: SynthesizerSFTConfig, material: Material, supplied: Sequence[Synthesis]) -> int:
    """Targets, at the most."""
    problems = len({bundle.problem_id for bundle in material.bundles})
    most = min(len(material.bundles) * args.target_samples, problems * args.max_targets_per_problem)
    return len(supplied) or most


def training_row(prompter: Prompter, chat: Chat, text: str) -> dict[str, list[int]]:
    """Token ids of prompt and completion, exactly as the engines read and write them, and the mask of the
    trained ones.

    A chat template may rewrite an assistant's turn (thinking is dropped, or opened for it), so the completion
    is not rendered by it: it is the text and the token that ends a turn.
    """
    prompt = prompter.token_ids(chat)
    if prompter.opens_thinking:  # the prompt ends in `<think>`; a target without thinking closes it at once
        text = text.removeprefix(THINK_OPEN) if THINK_CLOSE in text else f"\n{THINK_CLOSE}\n\n{text}"
    completion = [*prompter.tokenizer(text, add_special_tokens=False)["input_ids"], _end_of_turn(prompter)]
    return {"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)}


def training_rows(
    material: Material, targets: Sequence[Synthesis], max_length: int | None
) -> list[dict[str, list[int]]]:
    """One row a target.

    Raises InputError, naming the number, if a row is longer than max_length or the context.
    """
    chats = {bundle.id: chat for bundle, chat in zip(material.bundles, material.chats, strict=True)}
    rows = [training_row(material.prompter, chats[target.bundle_id], target.text) for target in targets]
    longest = max((len(row["input_ids"]) for row in rows), default=0)
    check_context(longest, "the longest training row", material.context)
    if max_length is not None and longest > max_length:
        raise InputError(
            f"max_length {max_length} would cut the longest row, of {longest} tokens; raise it to {longest}"
        )
    return rows


def _train(
    data: BundleArguments,
    args: SynthesizerSFTConfig,
    model: ModelArguments,
    material: Material,
    targets: Sequence[Synthesis],
) -> None:
    trainer = SFTTrainer(
        args=args,
        train_dataset=Dataset.from_list(training_rows(material, targets, args.max_length)),
        processing_class=material.prompter.tokenizer,
        **model_arguments(args, model),
    )
    run_training(trainer)
    finish(trainer, data, model, "SFT", f"{len(targets)} verified answers to {len(material.bundles)} bundles")


def _sampled(args: SynthesizerSFTConfig, model: ModelArguments, material: Material) -> list[Synthesis]:
    """Targets by rejection sampling (STaR, arXiv 2203.14465; RFT, arXiv 2308.01825), every process a share of
    the bundles.

    They are kept in targets.jsonl, where a run that was stopped finds them. Raises InputError if no sample is
    correct.
    """
    path = Path(str(args.output_dir)) / "targets.jsonl"
    if path.exists():
        return read(Synthesis, str(path))
    state, teacher = PartialState(), _teacher(args, model)
    # vLLM leaves no memory behind in a process of its own; here it would, and the model is trained next
    engine = load_engine(
        teacher,
        EngineArguments(engine=args.target_engine, batch_size=args.target_batch_size),
        own_process=True,
    )
    own = syntheses_of(
        engine,
        Prompter(engine.tokenizer, material.prompter.config),
        material.bundles[state.process_index :: state.num_processes],
        Sampling(args.target_temperature, max_completion_tokens=args.max_target_tokens),
        samples=args.target_samples,
        seed=seed_of(args.seed, "target"),  # not the seeds of an evaluation
        plain=material.plain,
    )
    drawn: list[Synthesis] = gather_object(own)
    chosen = select(drawn, material.bundles, args.max_targets_per_problem)
    if not chosen:
        raise InputError(
            f"{teacher}: none of {len(drawn)} sampled targets is correct; name a stronger `teacher`"
        )
    correct = sum(s.verdict == CORRECT for s in drawn)
    log.info("%d of %d samples are correct, %d kept as targets", correct, len(drawn), len(chosen))
    if state.is_main_process:
        write(chosen, path)
    state.wait_for_everyone()
    return chosen


def _teacher(args: SynthesizerSFTConfig, model: ModelArguments) -> str:
    return args.teacher or str(model.model_name_or_path)


def _check_teacher(teacher: str, material: Material) -> None:
    """Raise InputError for a teacher that was trained with another prompt than it would be asked with."""
    if (
        teacher
        and (own := model_file(teacher, "prompt.yaml"))
        and PromptConfig.load(own) != material.prompter.config
    ):
        raise InputError(
            f"teacher {teacher}: was trained with another prompt than this training's; set prompt to {own}"
        )


def _dry_run(
    config: dict[str, Any], args: SynthesizerSFTConfig, material: Material, supplied: Sequence[Synthesis]
) -> str:
    trained = f"a verified answer of at most {args.max_target_tokens} tokens, and the end of the turn"
    if supplied:
        trained = next((t.text for t in supplied if t.bundle_id == material.bundles[0].id), trained)
    budget = f"completion at most {args.max_target_tokens} tokens"
    return describe(config, args, material, trained, budget, _rows(args, material, supplied))


def _end_of_turn(prompter: Prompter) -> int:
    """The token that ends an assistant's turn in the chat template; the tokenizer's eos where it has none."""
    tokenizer: Any = prompter.tokenizer
    turn = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "turn"}]
    tail = tokenizer.apply_chat_template(turn, tokenize=False).rpartition("turn")[2]
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return int(ids[0]) if ids and ids[0] in special else int(tokenizer.eos_token_id)


if __name__ == "__main__":
    leave(main)
