"""The targets of SFT: verified answers to the training bundles, read or sampled, and the rows made from
them.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from a2r_train.data.read import read
from a2r_train.engines import (
    EngineArguments,
    Sampling,
    begun_with,
    check_engine,
    load_engine,
    settled,
)
from a2r_train.errors import InputError
from a2r_train.inference.synthesise import syntheses_of
from a2r_train.markers import THINK_CLOSE, THINK_OPEN
from a2r_train.models import model_file
from a2r_train.prompts import Chat, PromptConfig, Prompter
from a2r_train.records import CHECK_VERDICT, CORRECT, UNPARSABLE, Bundle, Synthesis, row_of, seed_of, write
from a2r_train.train.arguments import ModelArguments, SynthesizerSFTConfig
from a2r_train.train.bundles import TrainingBundles, check_context
from a2r_train.train.rationalise import mentions, rationalised, within_share
from a2r_train.train.turns import without_turns
from a2r_train.train.unshown import holds_rollouts, unshown
from a2r_train.verify import judge_all

log = logging.getLogger(__name__)

MOST_SHOWN = 80  # characters of a text in an error
REFERENCES = "references"  # the value of `targets` that takes them from the bundles
# Fields that a row of targets may omit; the verdict is always computed again.
UNSAID: dict[str, Any] = {
    "answer": "",
    "verdict": CHECK_VERDICT,
    "finish_reason": "stop",
    "model": "",
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "seed": 0,
}


def supplied_targets(
    args: SynthesizerSFTConfig, model: ModelArguments, bundles: TrainingBundles
) -> list[Synthesis]:
    """The targets that the recipe names, verified and measured; none where they are to be sampled.

    Raises InputError for wrong targets, or if there are none and they cannot be sampled.
    """
    targets = []
    if args.targets == REFERENCES:
        targets = reference_targets(args, bundles)
    elif args.targets and holds_rollouts(args.targets):
        targets = rollout_targets(args, bundles)
    elif args.targets:
        prompter = bundles.prompter
        targets = read_targets(args.targets, bundles.bundles, prompter.config, bundles.plain, prompter)
    if not targets:
        _check_length(args, bundles)
        check_engine(_teacher(args, model), _engine_arguments(args))
        _check_teacher(args.teacher, bundles.prompter.config)
    training_rows(bundles, targets, args.max_length)
    return targets


def settle_engine(args: SynthesizerSFTConfig, model: ModelArguments) -> None:
    """Replace `auto` by the engine that samples the targets; a resumed run keeps its own."""
    if args.target_engine == "auto":
        begun = begun_with(str(args.output_dir), "target_engine")
        args.target_engine = begun or settled(_engine_arguments(args), _teacher(args, model)).engine


def read_targets(
    path: str,
    bundles: Sequence[Bundle],
    prompt: PromptConfig | None = None,
    plain: Container[str] = (),
    prompter: Prompter | None = None,
) -> list[Synthesis]:
    """Read targets and verify them again; keeps only the correct and different ones that have all sections of
    the prompt, if it has any. A row needs `bundle_id` and `text`.

    Raises InputError for a bundle id that the bundles lack, for a target that holds a turn marker of the
    prompter's model, and if no target is left.
    """
    targets = read(Synthesis, path, defaults=UNSAID)
    known = {bundle.id for bundle in bundles}
    for s in targets:
        if s.bundle_id not in known:
            raise InputError(
                f"{path}: a target is for bundle {s.bundle_id!r}, which is not among the bundles"
            )
    if prompter:
        targets = without_turns(targets, prompter, path)
    return verified(_different(targets, path), path, bundles, prompt, plain)


def _different(targets: Sequence[Synthesis], source: str) -> list[Synthesis]:
    """The first of each text for a bundle; the number of the others is logged."""
    first = {(target.bundle_id, target.text): target for target in reversed(targets)}
    kept = [target for target in targets if first[target.bundle_id, target.text] is target]
    if len(kept) < len(targets):
        _warn(
            f"{source}: {len(targets) - len(kept)} of {len(targets)} targets repeat an earlier one of their "
            "bundle and are left out"
        )
    return kept


def _warn(says: str) -> None:
    if PartialState().is_main_process:
        log.warning(says)


def reference_targets(args: SynthesizerSFTConfig, bundles: TrainingBundles) -> list[Synthesis]:
    """The shortest right reference of each bundle, unchanged; verified and capped as sampled targets are.

    Raises InputError if none is left.
    """
    found = []
    for bundle in bundles.bundles:
        right = [r for r in bundle.references if r.verdict == CORRECT]
        counted = [(bundles.prompter.count(r.text), r) for r in right]
        kept = [one for one in counted if one[0] <= args.max_target_tokens]
        if kept:
            tokens, best = min(kept, key=lambda one: one[0])
            values = {**UNSAID, "answer": best.answer, "model": best.model, "completion_tokens": tokens}
            found.append(Synthesis(bundle.id, 0, best.text, **values))
    if not found:
        raise InputError(
            "targets: references: no bundle has a right reference of at most "
            f"{args.max_target_tokens} tokens (max_target_tokens)"
        )
    whole = verified(found, "targets: references", bundles.bundles, bundles.prompter.config, bundles.plain)
    right_ones = [replace(target, verdict=CORRECT) for target in whole]
    return select(right_ones, bundles.bundles, args.max_targets_per_problem)


def rollout_targets(args: SynthesizerSFTConfig, bundles: TrainingBundles) -> list[Synthesis]:
    """For each bundle a right rollout that it does not show, of the file that `targets` names.

    Raises InputError as `unshown` does, and if the prompt asks for sections, which rollouts do not have.
    """
    chosen = unshown(
        args.targets,
        bundles.bundles,
        bundles.prompter,
        most=args.max_targets_per_problem,
        max_tokens=args.max_target_tokens,
        seed=args.seed,
    )
    found = [
        Synthesis(identity, 0, rollout.text, **{**UNSAID, "answer": rollout.answer, "model": rollout.model})
        for identity, rollout in chosen
    ]
    by_id = {bundle.id: bundle for bundle in bundles.bundles} if bundles.prompter.config.sections else {}
    whole = with_sections(found, by_id, bundles.prompter.config, bundles.plain)
    if not whole:
        raise InputError(f"{args.targets}: rollouts lack sections of the prompt; let the targets be sampled")
    return whole


def verified(
    targets: Sequence[Synthesis],
    source: str,
    bundles: Sequence[Bundle],
    prompt: PromptConfig | None = None,
    plain: Container[str] = (),
) -> list[Synthesis]:
    """The targets that are correct and have all sections of the prompt; the number of the others is logged.

    Raises InputError if none is left.
    """
    by_id = {bundle.id: bundle for bundle in bundles}
    judged = judge_all(
        [
            (
                prompt.judged_text(s.text) if prompt else s.text,
                by_id[s.bundle_id].answer,
                by_id[s.bundle_id].verifier,
            )
            for s in targets
        ],
        [row_of(by_id[s.bundle_id]) for s in targets],
    )
    correct = [s for s, judgement in zip(targets, judged, strict=True) if judgement.verdict == CORRECT]
    whole = with_sections(correct, by_id, prompt, plain)
    if not whole:
        missing = f"; {len(correct)} are, but lack sections of the prompt" if correct else ""
        unread = [s.text for s, one in zip(targets, judged, strict=True) if one.verdict == UNPARSABLE]
        missing += _unread(unread)
        raise InputError(
            f"{source}: none of {len(targets)} targets is correct{missing}; SFT needs verified ones"
        )
    if wrong := len(targets) - len(correct):
        unparsable = sum(judgement.verdict == UNPARSABLE for judgement in judged)
        told = f" ({unparsable} unparsable)" if unparsable else ""
        _warn(f"{source}: {wrong} of {len(targets)} targets are not correct and are left out{told}")
    if lacking := len(correct) - len(whole):
        _warn(f"{source}: {lacking} of {len(correct)} correct targets lack sections and are left out")
    return whole


def with_sections(
    syntheses: Sequence[Synthesis],
    by_id: Mapping[str, Bundle],
    prompt: PromptConfig | None,
    plain: Container[str] = (),
) -> list[Synthesis]:
    """The syntheses that have all sections the prompt asks for, and a verdict on each reference; `plain`
    bundles were shown without references, and need none of this.
    """
    if prompt is None or not prompt.sections:
        return list(syntheses)

    parts_of = prompt.parts_of

    def is_whole(one: Synthesis) -> bool:
        parts = parts_of(one.text)
        return parts is not None and parts.are_whole(len(by_id[one.bundle_id].references))

    return [one for one in syntheses if one.bundle_id in plain or is_whole(one)]


def sample_targets(
    args: SynthesizerSFTConfig, model: ModelArguments, bundles: TrainingBundles
) -> list[Synthesis]:
    """Targets by rejection sampling (STaR, arXiv 2203.14465; RFT, arXiv 2308.01825); each process samples a
    share of the bundles.

    With `rationalised_share` some are sampled with the gold answer shown (`rationalise`). They are kept in
    targets.jsonl, where a resumed run finds them. Raises InputError if no sample is correct.
    """
    path = Path(str(args.output_dir)) / "targets.jsonl"
    if path.exists():
        return read(Synthesis, str(path))
    state, teacher = PartialState(), _teacher(args, model)
    made: list[Synthesis] = gather_object(_samples(args, teacher, bundles, state))
    gc.collect()  # reference cycles may keep the engine alive, and the training needs its memory
    by_id = {bundle.id: bundle for bundle in bundles.bundles} if bundles.prompter.config.sections else {}
    whole = with_sections(made, by_id, bundles.prompter.config, bundles.plain)
    if len(whole) < len(made):
        log.info("%d of %d samples have all sections of the prompt", len(whole), len(made))
    samples = [s for s in made if not s.rationalised]
    targets = select([s for s in whole if not s.rationalised], bundles.bundles, args.max_targets_per_problem)
    if not targets:
        raise InputError(
            f"{teacher}: none of {len(samples)} sampled targets is correct"
            f"{' and has all sections' if by_id else ''}"
            f"{_unread([s.text for s in samples if s.verdict == UNPARSABLE])}"
            "; name a stronger `teacher`, supply `targets`"
            f"{_or_references(bundles)}, or skip SFT and let GRPO start from the base"
        )
    correct = sum(s.verdict == CORRECT for s in samples)
    log.info("%d of %d samples are correct, %d kept as targets", correct, len(samples), len(targets))
    if hinted := [s for s in whole if s.rationalised]:
        targets = _with_rationalised(args, bundles.bundles, targets, hinted)
    if state.is_main_process:
        write(targets, path)
    state.wait_for_everyone()
    return targets


def _unread(texts: Sequence[str]) -> str:
    """What an error adds about texts without a readable answer; "" if there are none."""
    shown = next((text.strip()[-MOST_SHOWN:] for text in texts if text.strip()), "")
    return f"; {len(texts)} have no answer that can be read, such as {shown!r}" if texts else ""


def _or_references(bundles: TrainingBundles) -> str:
    """A hint at the cheapest targets, where they would do: an explorer does not write sections."""
    if bundles.prompter.config.sections:
        return ""
    right = sum(n > 0 for n in bundles.bundles.column("n_correct").to_pylist())
    return f" (`targets: references` takes a right reference of {right} bundles)" if right else ""


def _with_rationalised(
    args: SynthesizerSFTConfig,
    bundles: Sequence[Bundle],
    targets: Sequence[Synthesis],
    hinted: Sequence[Synthesis],
) -> list[Synthesis]:
    """The targets, and as many of those made with the gold answer shown as the limits allow."""
    silent = [s for s in hinted if not mentions(s.text, args.rationalised_hint)]
    right = select(silent, bundles, args.max_targets_per_problem)
    added = within_share(
        targets,
        right,
        bundles,
        share=args.rationalised_share,
        most=args.max_targets_per_problem,
        seed=args.seed,
    )
    log.info(
        "%d bundles without a correct sample were asked again with the gold answer shown: of %d answers "
        "%d do not mention it, %d of those are correct and different, %d kept as targets",
        len({s.bundle_id for s in hinted}),
        len(hinted),
        len(silent),
        len(right),
        len(added),
    )
    position = {bundle.id: at for at, bundle in enumerate(bundles)}
    return sorted([*targets, *added], key=lambda s: (position[s.bundle_id], s.sample))


def _samples(
    args: SynthesizerSFTConfig, teacher: str, bundles: TrainingBundles, state: PartialState
) -> list[Synthesis]:
    """The samples of this process, judged.

    In its own process vLLM leaves no memory behind; here it would, and the model is trained next.
    """
    engine = load_engine(teacher, _engine_arguments(args), own_process=True)
    prompter = Prompter(engine.tokenizer, bundles.prompter.config)
    own = bundles.bundles[state.process_index :: state.num_processes]
    sampling = Sampling(args.target_temperature, max_completion_tokens=args.max_target_tokens)
    seed = seed_of(args.seed, "target")  # differs from the seeds of an evaluation
    how: dict[str, Any] = {"samples": args.target_samples, "seed": seed, "plain": bundles.plain}
    log.info("sampling targets: %d answers to %d bundles", args.target_samples * len(own), len(own))
    made = syntheses_of(engine, prompter, own, sampling, **how)
    if args.rationalised_share:
        made += rationalised(engine, prompter, own, made, sampling, hint=args.rationalised_hint, **how)
    return made


def select(
    syntheses: Sequence[Synthesis], bundles: Sequence[Bundle], max_per_problem: int
) -> list[Synthesis]:
    """The correct, finished, distinct syntheses: at most `max_per_problem` per problem, those of its hardest
    bundles first.

    The fewer samples of a bundle are correct, the harder it is; ties are broken by the order of bundles and
    samples.
    """
    position = {bundle.id: i for i, bundle in enumerate(bundles)}
    correct = Counter(s.bundle_id for s in syntheses if s.verdict == CORRECT)
    kept: dict[str, list[Synthesis]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for s in sorted(syntheses, key=lambda s: (correct[s.bundle_id], position[s.bundle_id], s.sample)):
        right = s.verdict == CORRECT and s.finish_reason != "length" and (s.bundle_id, s.text) not in seen
        problem = kept[bundles[position[s.bundle_id]].problem_id]
        if right and len(problem) < max_per_problem:
            problem.append(s)
            seen.add((s.bundle_id, s.text))
    chosen = [s for problem in kept.values() for s in problem]
    return sorted(chosen, key=lambda s: (position[s.bundle_id], s.sample))


def training_rows(
    bundles: TrainingBundles, targets: Sequence[Synthesis], max_length: int | None
) -> list[dict[str, list[int]]]:
    """One row per target.

    Raises InputError, with the number of tokens, if a row is longer than max_length or the context.
    """
    asked = {target.bundle_id for target in targets}
    ids = bundles.bundles.column("id").to_pylist()
    chats = {identity: bundles.rows[at].chat for at, identity in enumerate(ids) if identity in asked}
    rows = [training_row(bundles.prompter, chats[target.bundle_id], target.text) for target in targets]
    longest = max((len(row["input_ids"]) for row in rows), default=0)
    check_context(longest, "the longest training row", bundles.context)
    if max_length is not None and longest > max_length:
        raise InputError(
            f"max_length {max_length} would cut the longest row, of {longest} tokens; raise it to {longest}"
        )
    return rows


def _check_length(args: SynthesizerSFTConfig, bundles: TrainingBundles) -> None:
    """Raise InputError for a max_length that leaves no room for a target, before any is sampled."""
    if args.max_length is not None and args.max_length <= bundles.longest_prompt:
        raise InputError(
            f"max_length is {args.max_length}, but the longest prompt alone has {bundles.longest_prompt} "
            f"tokens; raise it to {bundles.longest_prompt + args.max_target_tokens + 1}, which also holds "
            "the longest target"
        )


def training_row(prompter: Prompter, chat: Chat, text: str) -> dict[str, list[int]]:
    """Token ids of prompt and completion, exactly as the engines read and write them, and the mask of the
    trained ones.

    A chat template may rewrite an assistant's turn (drop its thinking, or open it), so the completion is not
    rendered by the template: it is the text, with the model's own thinking markers, and the token that ends a
    turn.
    """
    prompt = prompter.token_ids(chat)
    if prompter.opens_thinking:  # the prompt ends in `<think>`; a target without thinking closes it at once
        text = text.removeprefix(THINK_OPEN) if THINK_CLOSE in text else f"\n{THINK_CLOSE}\n\n{text}"
    completion = [*prompter.ids(prompter.own(text)), prompter.end_of_turn()]
    return {"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)}


def _engine_arguments(args: SynthesizerSFTConfig) -> EngineArguments:
    return EngineArguments(engine=args.target_engine, batch_size=args.target_batch_size)


def _teacher(args: SynthesizerSFTConfig, model: ModelArguments) -> str:
    return args.teacher or str(model.model_name_or_path)


def _check_teacher(teacher: str, prompt: PromptConfig) -> None:
    """Raise InputError for a teacher trained with a prompt other than the one it would be asked with."""
    trained_with = model_file(teacher, "prompt.yaml") if teacher else None
    if trained_with and PromptConfig.load(trained_with) != prompt:
        raise InputError(
            f"teacher {teacher}: trained with a prompt other than that of this training; "
            f"set prompt to {trained_with}"
        )
