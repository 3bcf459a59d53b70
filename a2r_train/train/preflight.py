"""Checks that find what is wrong with a training before it starts: `a2r check` runs them, and every training
runs them first.

No weights are loaded: the model is built without memory (on the meta device) to count its parameters.
"""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import get_peft_model
from trl.trainer.grpo_config import GRPOConfig

from a2r_train.data.gym import FREE
from a2r_train.data.options import letters_judged_as_text
from a2r_train.errors import InputError
from a2r_train.markers import THINK_CLOSE, THINK_OPEN
from a2r_train.models import empty_model
from a2r_train.prompts import Prompter
from a2r_train.records import CORRECT, Bundle, row_of
from a2r_train.train import yellow_checks
from a2r_train.train.arguments import (
    ModelArguments,
    TrainConfig,
    batch_and_steps,
    cycle_steps,
    generation_passes,
    interval,
    no_batch,
    rows_of_a_batch,
    trained_rows,
)
from a2r_train.train.attack import FEWEST_ROWS, MOST_PAID, attacked
from a2r_train.train.bundles import TrainingBundle, TrainingBundles
from a2r_train.train.model import peft_of, sharding_of
from a2r_train.train.rewards import VerifiableReward
from a2r_train.train.section_rewards import are_rewarded, credits_of, section_rewards
from a2r_train.train.watch import MOST_PASSES
from a2r_train.train.written import as_asked
from a2r_train.verify import programs
from a2r_train.verify.extract import clean, letter, written
from a2r_train.verify.traits import SHIPPED

log = logging.getLogger(__name__)

WRONG_TRIED = 500  # gold answers that a wrong one is compared with: each comparison takes milliseconds
MOST_HOLES = 3  # ways to earn a reward without solving that are named
NO_SIGNAL = 0.99  # share of groups without a signal; from here on there is nothing to learn
MOST_LEFT_OUT = 0.1  # share of the rows
FLOAT32_BYTES = 4
# Bytes of a checkpoint with optimizer per trained parameter; zero2 and fsdp2 as measured, which hold tied
# embeddings twice.
CHECKPOINT_BYTES = {"ddp": 12, "zero2": 17, "zero3": 14, "zero3_offload": 14, "fsdp2": 18}

STARTS_OVER = "checkpoints have no optimizer: a run that is killed starts over"

_THINKING = re.compile(rf"\s*(?:{THINK_OPEN}.*?{THINK_CLOSE})?\s*", re.DOTALL)
_CLOSED_THINKING = re.compile(rf"{THINK_OPEN}\s*{THINK_CLOSE}\s*$")


@dataclass(frozen=True)
class Check:
    """One line of the preflight: green if it passed, yellow if it only warns or could not test anything, else
    red.
    """

    name: str
    passed: bool
    detail: str
    yellow: bool = False

    @property
    def color(self) -> str:
        return "red" if not self.passed else "yellow" if self.yellow else "green"


def require(checks: Sequence[Check]) -> None:
    """Log the checks. Raises InputError with what is red."""
    red = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
    if red:
        raise InputError(f"preflight: {'; '.join(red)}")
    for check in checks if PartialState().is_main_process else ():
        log.info("preflight: %s, %s: %s", check.color, check.name, check.detail)


def preflight(
    args: TrainConfig,
    model: ModelArguments,
    bundles: TrainingBundles,
    completion_tokens: int | None,
    steps: int,
) -> list[Check]:
    """All checks of one training; `completion_tokens` is None where the completions are given and already
    measured.

    `steps` is the length of the training in optimizer steps, or an upper bound on it.
    """
    shown = [row.bundle for row in bundles.sample]
    checks = [
        *_rewards(bundles, shown),
        *_attacked(bundles),
        _length(bundles, completion_tokens),
        _template(bundles),
        _end_of_turn(bundles),
        _disk(args, model, steps),
        *(Check("verifier", True, text, True) for text in yellow_checks.one_sided_verifiers(shown)),
        *([Check("verifier", True, letters, True)] if (letters := letters_judged_as_text(shown)) else []),
        *([Check("save_only_model", True, STARTS_OVER, True)] if args.save_only_model else []),
    ]
    if isinstance(args, GRPOConfig):
        checks += [*_sections(args, bundles, shown), *_signal(args, bundles.sample)]
        checks += [_repeats(args, len(bundles.rows), steps), *_windows(args), _save_steps(args)]
    return checks


def batches(args: TrainConfig, rows: int, what: str) -> list[Check]:
    """Red where the rows do not fill one batch, yellow where many are left out of each epoch; no line if none
    are.
    """
    unit, left = rows_of_a_batch(args), rows - trained_rows(args, rows)
    if rows < unit:
        return [Check("batches", False, no_batch(args, rows, what))]
    says = f"{left} of {rows} {what} are left out of each epoch, because a batch takes {unit}"
    return [Check("batches", True, says, yellow=left > MOST_LEFT_OUT * rows)] if left else []


def _rewards(bundles: TrainingBundles, shown: Sequence[Bundle]) -> list[Check]:
    """Whether the training reward pays the gold answers, and does not pay answers that must earn nothing."""
    by_gold = {(b.answer, b.verifier): b for b in reversed(shown) if _right(b)}
    different = list(by_gold.values())[::-1]
    ruled = [b for b in different if b.verifier in SHIPPED]
    few = ruled[:: math.ceil(len(ruled) / WRONG_TRIED) or 1]
    gold = "the gold answer"
    if len(ruled) < len(different):
        gold = "the gold answer (own verifiers: a correct reference's)"
    prompt, close = bundles.prompter.config, f"{THINK_CLOSE}\n" if bundles.prompter.opens_thinking else ""
    asked = [b for b in different if as_asked(prompt, _right(b), b.verifier) is not None]
    tried: list[tuple[str, float, Sequence[Bundle], Callable[[Bundle], str]]] = [
        (gold, 1.0, asked, lambda b: f"{close}{as_asked(prompt, _right(b), b.verifier)}"),
        ("an empty completion", 0.0, different, lambda _: ""),
        ("a truncated answer", 0.0, different, lambda b: f"{close}So {_cut(b)}"),
        ("a wrong answer", 0.0, few, lambda b: f"{close}{as_asked(prompt, _wrong(b), b.verifier) or ''}"),
    ]
    untried = _untried(different, ruled)
    return [_reward(bundles.prompter, untried, *one) for one in tried]


def _cut(bundle: Bundle) -> str:
    """A text with the right answer, cut off before its closing mark."""
    return (
        written(_right(bundle), bundle.verifier)
        .removesuffix("}")
        .removesuffix("```")
        .removesuffix("</answer>")
    )


def _attacked(bundles: TrainingBundles) -> list[Check]:
    """Red if answers that solve nothing earn a reward; no line where there are few rows to try."""
    found = attacked(bundles.bundles, bundles.prompter)
    holes = [one for one in found if one.is_hole]
    if holes:
        more = f"; and {len(holes) - MOST_HOLES} more" if len(holes) > MOST_HOLES else ""
        says = "; ".join(map(str, holes[:MOST_HOLES]))
        return [Check("attack", False, f"{says}{more}; fix the verifier, or leave these problems out")]
    if all(one.rows < FEWEST_ROWS for one in found):
        return []
    tried = len({one.attack for one in found})
    says = f"{tried} answers that solve nothing are paid on at most {MOST_PAID:.0%} of rows with another gold"
    return [Check("attack", True, says)]


def _untried(different: Sequence[Bundle], ruled: Sequence[Bundle]) -> str:
    """Why the reward could not be tried, and what the user can do instead."""
    if not different:
        return "your own verifier calls no reference right; try it on an answer that you know to be right"
    if not ruled:
        return "only your own verifier knows what is wrong; try it on answers that you know to be wrong"
    return "no text could be made for the prompt's answer_pattern; check that the first steps earn a reward"


def _reward(
    prompter: Prompter,
    untried: str,
    name: str,
    expected: float,
    bundles: Sequence[Bundle],
    write: Callable[[Bundle], str],
) -> Check:
    rewards = VerifiableReward(prompter)(
        [[{"role": "assistant", "content": write(b)}] for b in bundles],
        answer=[b.answer for b in bundles],
        verifier=[b.verifier for b in bundles],
        n_correct=[b.n_correct for b in bundles],
        majority_answer=[b.majority_answer for b in bundles],
        row=[json.dumps(row_of(b)) for b in bundles],
    )
    off = [b for b, reward in zip(bundles, rewards, strict=True) if reward != expected]
    if not off:
        detail = f"{name} earns {expected:.0f}, in {len(bundles)} different cases"
        return Check("reward", True, detail if bundles else f"{name} was not tried: {untried}", not bundles)
    return Check(
        "reward",
        False,
        f"{name} of bundle {off[0].id!r} (gold {off[0].answer[:40]!r}) does not earn {expected:.0f}",
    )


def _sections(args: GRPOConfig, bundles: TrainingBundles, shown: Sequence[Bundle]) -> list[Check]:
    """The rewards of the sections, and whether a synthesis that is right throughout earns them."""
    if not are_rewarded(bundles):
        return []
    found, weights = credits_of(bundles), args.reward_weights or [1.0] * 3
    own, verdicts = section_rewards(bundles)
    shown = shown[:: math.ceil(len(shown) / WRONG_TRIED)]
    right = [[r.verdict == CORRECT for r in b.references] for b in shown]
    texts = [_in_sections(bundles.prompter, b) for b in shown]
    columns = {"answer": [b.answer for b in shown], "verifier": [b.verifier for b in shown]}
    columns |= {"row": [json.dumps(row_of(b)) for b in shown]}
    earned = zip(
        own(texts, references_right=right, **columns), verdicts(texts, references_right=right), strict=True
    )
    off = [
        b
        for b, is_right, one in zip(shown, right, earned, strict=True)
        if one != (1.0, found.earned(is_right, is_right))
        and as_asked(bundles.prompter.config, _right(b), b.verifier)
    ]
    if off:
        says = f"a right synthesis of bundle {off[0].id!r} is not paid for its own solution and its verdicts"
        return [Check("sections", False, says)]
    says = (
        f"weights {weights[0]:g} for the answer, {weights[1]:g} for the own solution, {weights[2]:g} for the "
        f"verdicts, of which one on a right reference earns or loses {found.right:.2f}, on a wrong one "
        f"{found.wrong:.2f}"
    )
    if not found.right:
        says += "; all references are right, or all are wrong, so verdicts earn nothing"
    return [Check("sections", True, says, yellow=not found.right)]


def _in_sections(prompter: Prompter, bundle: Bundle) -> list[dict[str, str]]:
    """A completion that is right throughout."""
    headings, answer = prompter.config.sections, as_asked(prompter.config, _right(bundle), bundle.verifier)
    verdicts = (
        f"Reference {at}: {'right' if r.verdict == CORRECT else 'wrong'}"
        for at, r in enumerate(bundle.references, 1)
    )
    below = {"solution": answer or "", "verdicts": "\n".join(verdicts), "answer": answer or ""}
    text = "\n\n".join(f"## {heading}\n{below[name]}" for name, heading in headings.items())
    close = f"{THINK_CLOSE}\n" if prompter.opens_thinking else ""
    return [{"role": "assistant", "content": close + text}]


def _right(bundle: Bundle) -> str:
    """An answer that must earn a reward: the gold one. Your own verifier may have anything as gold, so for it
    a correct reference's answer, or "" if there is none.
    """
    if bundle.verifier in SHIPPED and bundle.answer != FREE:
        return bundle.answer
    return next((r.answer for r in bundle.references if r.verdict == CORRECT), "")


def _wrong(bundle: Bundle) -> str:
    if bundle.verifier == "multiple_choice":
        return "B" if letter(clean(bundle.answer)) == "A" else "A"
    return "-98765.4321"


def _length(bundles: TrainingBundles, completion_tokens: int | None) -> Check:
    """Whether prompt and completion fit the model, and the gold answers the completion."""
    budget = completion_tokens or 0
    total = bundles.longest_prompt + budget
    says = f"the longest prompt {bundles.longest_prompt} + completion {budget} = {total} tokens"
    if completion_tokens is None:
        says = f"the longest prompt has {total} tokens"
    if total > bundles.context:
        detail = f"{says} is over the model's context of {bundles.context}; "
        return Check("length", False, f"{detail}lower max_prompt_tokens or the completion")
    # A program can always be shorter than the gold one.
    shown = [row.bundle for row in bundles.sample]
    golds = {(b.answer, b.verifier) for b in shown if b.verifier != programs.NAME}
    needed = max((bundles.prompter.count(written(*gold)) for gold in golds), default=0)
    if completion_tokens is not None and needed > completion_tokens:
        detail = f"a completion of {budget} tokens cannot hold a gold answer of {needed}; raise it"
        return Check("length", False, detail)
    says += f", of {bundles.context} in the model's context"
    if budget and (lengths := _tokens_of_correct(shown)):
        longer = sum(tokens > budget for tokens in lengths) / len(lengths)
        says += f"; {longer:.0%} of the correct references are longer than such a completion"
    if bundles.cut_references:
        says += f"; {bundles.cut_references} references were cut to fit the prompt"
    return Check("length", True, says)


def _tokens_of_correct(bundles: Sequence[Bundle]) -> list[int]:
    """Token counts of the correct references; 0 means that nobody counted, and is left out."""
    references = [reference for bundle in bundles for reference in bundle.references]
    return [one.tokens for one in references if one.verdict == CORRECT and one.tokens]


def _template(bundles: TrainingBundles) -> Check:
    """The prompt must equal a whole conversation up to the assistant's first word."""
    chat, word = bundles.sample[0].chat, "Completion"
    prompt = bundles.prompter.text(chat)
    for opened in bundles.prompter.thinking_openers if bundles.prompter.opens_thinking else ():
        prompt = prompt.rstrip().removesuffix(opened)
    prompt = _CLOSED_THINKING.sub("", prompt)  # left there when thinking is switched off
    whole = bundles.prompter.conversation(chat, word)
    says = f"the prompt ends in {prompt[-24:]!r}"
    rest = whole.removeprefix(prompt.rstrip())
    if rest != whole and _THINKING.sub("", rest, count=1).startswith(word):
        return Check("chat template", True, f"{says}, which a completion continues")
    detail = f"{says}, which does not begin an assistant's turn; fix add_generation_prompt in the template"
    return Check("chat template", False, detail)


def _end_of_turn(bundles: TrainingBundles) -> Check:
    """Something must end a completion."""
    tokenizer: Any = bundles.prompter.tokenizer
    try:
        token = tokenizer.convert_ids_to_tokens(bundles.prompter.end_of_turn())
    except InputError as error:
        return Check("end of turn", False, str(error))
    return Check("end of turn", True, f"{token!r} ends a turn, in generation and in what is saved")


def _signal(args: GRPOConfig, rows: Sequence[TrainingBundle]) -> list[Check]:
    """Share of groups whose completions all earn the same, if the synthesizer were right as often as the
    references it is shown; no line where it is shown none, since nothing is known about it then.

    A binomial estimate, p^G + (1 - p)^G with p the share of correct references of a problem over all its
    bundles; a single reference, which would always say 0 or 1, has that of all problems. It is never green,
    because two things make it too low. A synthesizer that cannot follow its prompt yet is hardly ever right,
    whatever its references are. And completions that follow the same references are alike: 53 % of the groups
    had no signal where this estimate says 11 (docs/results/trained-explorer.md).
    """
    bundles = [row.bundle for row in rows if row.shows_references]
    if not bundles:
        return []
    group = int(args.num_generations or 1)
    right: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for bundle in bundles:
        right[bundle.problem_id] += bundle.n_correct
        shown[bundle.problem_id] += len(bundle.references)
    overall = right.total() / max(1, shown.total())
    known = {one: right[one] / count if count > 1 else overall for one, count in shown.items()}
    shares = [known[b.problem_id] for b in bundles]
    zero = sum(p**group + (1 - p) ** group for p in shares) / len(shares)
    says = (
        "estimated from the references, not measured: if the synthesizer is right as often as its "
        f"explorer, {zero:.0%} of the groups of {group} have equal rewards and teach nothing; usually more "
        "if it is not, or if it follows its references: the line of each step says how many"
    )
    few = yellow_checks.few_live_groups(zero, len(bundles))
    remedy = "; bundle problems of medium difficulty" if few else ""
    return [Check("learning signal", zero < NO_SIGNAL, f"{says}{remedy}", yellow=True)]


def _repeats(args: GRPOConfig, bundles: int, steps: int) -> Check:
    """How often a bundle is trained on; yellow if too often to learn anything new."""
    groups = steps * batch_and_steps(args, 0)[0] / int(args.num_generations or 1)
    passes = groups / bundles
    drawn = " on average" if getattr(args, "oversampling_factor", 1) > 1 else ""
    says = f"{groups:.0f} groups of {bundles} bundles: each is trained on {passes:.1f} times{drawn}"
    if passes <= MOST_PASSES:
        return Check("repeats", True, says)
    return Check("repeats", True, f"{says}; bundle more problems, or make fewer steps", yellow=True)


def _windows(args: GRPOConfig) -> list[Check]:
    """Red where an optimizer step would begin in the middle of a generation: transformers cuts the last step
    of an epoch short, and from there on no checkpoint falls on a generation's end.
    """
    passes, accumulated = generation_passes(args), args.gradient_accumulation_steps
    if not (passes % accumulated and accumulated % passes):
        return []
    says = (
        f"a generation lasts {passes} forward passes (steps_per_generation x num_iterations), a step takes "
        f"{accumulated} (gradient_accumulation_steps); make one a multiple of the other"
    )
    return [Check("generations", False, says)]


def _save_steps(args: GRPOConfig) -> Check:
    """Red where a run could not resume; yellow where nothing of it can be checked."""
    cycle, every = cycle_steps(args), args.save_steps
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "no":
        return Check("save_steps", True, "save_strategy no: a run that is killed starts over", yellow=True)
    if strategy != "steps" and cycle > 1:
        detail = f"save_strategy {strategy}: a run can resume only after every {cycle} steps; set it to steps"
        return Check("save_steps", True, detail, yellow=True)
    if strategy == "steps" and cycle > 1 and (every < 1 or every % cycle):
        detail = (
            f"{every:g} is not a multiple of {cycle}, the steps trained on one generation; "
            "a run can resume only there"
        )
        return Check("save_steps", False, detail)
    return Check("save_steps", True, f"checkpoints are saved at the end of a generation's {cycle} step(s)")


def _disk(args: TrainConfig, model: ModelArguments, steps: int) -> Check:
    """Room for the checkpoints that are kept, the one being written, and the final model; what the folder
    already holds counts as free.
    """
    trained = _trained_parameters(model)
    weights = FLOAT32_BYTES * trained
    checkpoint = weights if args.save_only_model else CHECKPOINT_BYTES[sharding_of(args)] * trained
    kept = _checkpoints(args, steps)
    needed = weights + kept * checkpoint
    folder = Path(str(args.output_dir))
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(parent).free
    says = f"{kept} checkpoint(s) and the model take {needed / 1e9:.2f} GB at most, {free / 1e9:.1f} GB free"
    if needed - held <= free:
        return Check("disk", True, says)
    return Check("disk", False, f"{says} at {parent}; lower save_total_limit, raise save_steps, or make room")


def _checkpoints(args: TrainConfig, steps: int) -> int:
    """The most checkpoints on disk at once: the oldest is removed once the newest is complete, the best
    never.
    """
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "no":
        return 1  # at SIGTERM
    written = math.ceil(steps / interval(args.save_steps, steps))
    if strategy == "epoch":
        written = math.ceil(args.num_train_epochs)
    kept = max(args.save_total_limit or written, 2 if args.load_best_model_at_end else 1)
    return min(written, kept + 1)


def _trained_parameters(model: ModelArguments) -> int:
    whole: Any = empty_model(str(model.model_name_or_path))
    if peft := peft_of(model):
        try:
            whole = get_peft_model(whole, peft)
        except ValueError as error:
            says = " ".join(str(error).split())
            raise InputError(f"the adapter does not fit {model.model_name_or_path}: {says}") from None
    return sum(p.numel() for p in whole.parameters() if p.requires_grad)
