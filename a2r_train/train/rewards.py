"""The verifiable reward of GRPO, and the metrics that a synthesizer needs beyond TRL's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from math import comb
from typing import Any

from a2r_train.models import load_tokenizer
from a2r_train.prompts import Messages, PromptConfig, Prompter
from a2r_train.records import CORRECT, UNPARSABLE
from a2r_train.verify import Judgement, judge_all
from a2r_train.verify.compare import compare_all


def texts_of(
    prompter: Prompter, completions: Sequence[Messages], completion_ids: Sequence[Sequence[int]] | None
) -> list[str]:
    """The completions as text, with their thinking between `<think>` and `</think>`."""
    written = [completion[-1]["content"] for completion in completions]
    if completion_ids:  # TRL drops special tokens when it decodes, and one of them may close the thinking
        written = [prompter.decode(ids) for ids in completion_ids]
    return [prompter.complete(text) for text in written]


def problems_in(row: Sequence[str] | None) -> list[dict[str, Any]] | None:
    """The problems that a verifier may ask for, from the column `row`."""
    return [json.loads(one) for one in row] if row else None


class VerifiableReward:
    """1.0 for the verdict `correct`, 0.0 for every other; called by TRL with one completion per row.

    The columns `answer` and `verifier` of the dataset decide, and `row`, the problem as JSON, for a verifier
    that asks for it. It logs, as means over completions: `right_rate` and `unparsable_rate` (no answer can be
    read), `reward/n_correct=C` (reward where C references were correct), `copy_rate` (the answer is
    equivalent to the references' majority) and `new_correct_rate` (reward where no reference was correct);
    `reward/plain` where no references were shown.
    """

    __name__ = "verifiable_reward"

    def __init__(self, prompter: Prompter) -> None:
        self.prompter = prompter

    def __call__(
        self,
        completions: Sequence[Messages],
        answer: Sequence[str],
        verifier: Sequence[str],
        n_correct: Sequence[int],
        majority_answer: Sequence[str],
        plain: Sequence[bool] | None = None,
        row: Sequence[str] | None = None,
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[str]], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        texts = texts_of(self.prompter, completions, completion_ids)
        texts = [self.prompter.config.judged_text(text) for text in texts]
        judged = judge_all(list(zip(texts, answer, verifier, strict=True)), problems_in(row))
        rewards = [float(judgement.verdict == CORRECT) for judgement in judged]
        if log_metric:
            for judgement in judged:
                log_metric("right_rate", float(judgement.verdict == CORRECT))
                log_metric("unparsable_rate", float(judgement.verdict == UNPARSABLE))
            alone = plain or [False] * len(rewards)
            for reward, n, without in zip(rewards, n_correct, alone, strict=True):
                log_metric("reward/plain" if without else f"reward/n_correct={n}", reward)
                if n == 0 and not without:
                    log_metric("new_correct_rate", reward)
            shown = [m if not without else "" for m, without in zip(majority_answer, alone, strict=True)]
            for copied in _copies(judged, shown, verifier):
                log_metric("copy_rate", float(copied))
        if log_extra:
            log_extra("verdict", [judgement.verdict for judgement in judged])
        return [*rewards]


class PassAtKReward:
    """The credit of each completion for the pass@k of its group, instead of its own verdict: for explorers.

    A group estimates pass@k by all of its subsets of k. The gradient of this estimate is the policy gradient
    in which each completion is weighted by the share of its subsets that contain a correct one: 1 for a
    correct completion, and for a wrong one the pass@(k-1) of the others (PKPO, arXiv 2505.15201). So a wrong
    completion is punished less the more of the others are right, and an explorer keeps trying different
    things (ParaGator, arXiv 2603.18886). GRPO subtracts the group's mean.
    """

    __name__ = "pass_at_k_reward"

    def __init__(self, prompter: Prompter, k: int, group: int) -> None:
        self.verified, self.k, self.group = VerifiableReward(prompter), k, group

    def __call__(
        self, completions: Sequence[Messages], prompts: Sequence[Messages], **columns: Any
    ) -> list[float | None]:
        verdicts = self.verified(completions, **columns)
        credits: list[float | None] = []
        for _, rows in groupby(range(len(prompts)), key=lambda i: prompts[i]):
            correct = [bool(verdicts[i]) for i in rows]
            if len(correct) % self.group:
                raise ValueError(
                    "pass_at_k: each process must score whole groups; "
                    "make its number of completions a multiple of num_generations"
                )
            for at in range(0, len(correct), self.group):
                credits += pass_at_k_credits(correct[at : at + self.group], self.k)
        return credits


def pass_at_k_credits(correct: Sequence[bool], k: int) -> list[float]:
    """1 for each correct one; for each wrong one the chance that k - 1 of the others include a correct
    one.
    """
    others, right = len(correct) - 1, sum(correct)
    wrong = 1 - comb(others - right, k - 1) / comb(others, k - 1) if right <= others else 0.0
    return [1.0 if one else wrong for one in correct]


def _copies(judged: Sequence[Judgement], majority: Sequence[str], verifier: Sequence[str]) -> list[bool]:
    """Whether each answer equals the majority's, if there is a majority; a missing answer copies nothing."""
    rows = [(j.answer, m, v) for j, m, v in zip(judged, majority, verifier, strict=True) if m]
    return [verdict == CORRECT for verdict in compare_all(rows)]


@cache
def _reader(model: str, markers: tuple[str, ...]) -> Prompter:
    """The prompter that decodes a model's completions; each process loads its tokenizer once."""
    return Prompter(load_tokenizer(model), PromptConfig(thinking=markers))


@dataclass(frozen=True)
class _Opening:
    """A prompter for rewards only: what opens a completion, where answers are, and what decodes its ids."""

    opened: str
    config: PromptConfig
    reader: Prompter | None = None

    def decode(self, ids: Sequence[int]) -> str:
        assert self.reader  # without it no ids are passed
        return self.reader.decode(ids)

    def complete(self, completion: str) -> str:
        return self.opened + (self.reader.canonical(completion) if self.reader else completion)


def verifiable_reward(
    completions: Sequence[Messages],
    opened: Sequence[str],
    answer_pattern: Sequence[str],
    sections: Sequence[str] = (),
    thinking: Sequence[str] = (),
    **columns: Any,
) -> list[float | None]:
    """The same reward for the rows of `a2r export`, as a function that `trl grpo --reward_funcs` can name.

    `sections` are the headings of the prompt as JSON, if it has any; `thinking` names the model and its
    prompt's thinking markers, for texts from which TRL's decoding drops these markers, or whose markers are
    different.
    """
    headings = json.loads(sections[0]) if sections else {}
    asks = "\n".join(["{problem} {references}", *headings.values()])  # a prompt names its headings
    config = PromptConfig(answer_pattern=answer_pattern[0], sections=headings, synthesizer_template=asks)
    if thinking:
        named = json.loads(thinking[0])
        prompter: Any = _Opening(opened[0], config, _reader(named["model"], tuple(named["markers"])))
    else:
        prompter = _Opening(opened[0], config)
        columns.pop("completion_ids", None)  # the texts are read as TRL decoded them
    return VerifiableReward(prompter)(completions, **columns)
