"""Completions of an engine, judged: what a rollout and a synthesis have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from a2r_train.engines.base import Completion, Engine, Sampling, chat_key
from a2r_train.prompts import Chat, Prompter
from a2r_train.records import Bundle, Problem, Rollout, Synthesis, Verdict, row_of, seed_of
from a2r_train.verify import judge_all


@dataclass(frozen=True)
class JudgedSample:
    """One completion with its verdict; token counts are the engine's, and `model` is its name."""

    text: str
    answer: str
    verdict: Verdict
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    model: str
    seed: int

    def rollout(self, problem_id: str, sample: int) -> Rollout:
        return Rollout(problem_id, sample, **vars(self))

    def synthesis(self, bundle_id: str, sample: int) -> Synthesis:
        return Synthesis(bundle_id, sample, **vars(self))


@dataclass(frozen=True)
class Sample:
    """One completion of a problem or bundle, not judged yet."""

    item: Problem | Bundle
    sample: int
    seed: int
    completion: Completion


def judged_samples(
    engine: Engine,
    prompter: Prompter,
    items: Sequence[Problem] | Sequence[Bundle],
    chats: Mapping[str, Chat],
    sampling: Sampling,
    samples: int,
    seed: int,
) -> list[tuple[str, int, JudgedSample]]:
    """(id, sample, judged completion) for `samples` answers to the chat of each item, in the order item,
    sample.
    """
    return judged(prompter, engine.name, generated(engine, items, chats, sampling, samples, seed))


def generated(
    engine: Engine,
    items: Sequence[Problem] | Sequence[Bundle],
    chats: Mapping[str, Chat],
    sampling: Sampling,
    samples: int,
    seed: int,
) -> list[Sample]:
    """`samples` answers to the chat of each item, in the order item, sample."""
    work = [(item, sample, seed_of(seed, item.id, sample)) for item in items for sample in range(samples)]
    completions = _completions(
        engine, [chats[item.id] for item, _, _ in work], sampling, [seed for _, _, seed in work]
    )
    return [Sample(*one, completion) for one, completion in zip(work, completions, strict=True)]


def judged(prompter: Prompter, model: str, samples: Sequence[Sample]) -> list[tuple[str, int, JudgedSample]]:
    """(id, sample, judged completion) of each, in order; safe from any thread."""
    texts = [prompter.complete(one.completion.text) for one in samples]
    judgements = judge_all(
        [
            (prompter.config.judged_text(text), one.item.answer, one.item.verifier)
            for text, one in zip(texts, samples, strict=True)
        ],
        [row_of(one.item) for one in samples],
    )
    return [
        (
            one.item.id,
            one.sample,
            JudgedSample(
                text,
                judgement.answer,
                judgement.verdict,
                one.completion.prompt_tokens,
                one.completion.completion_tokens,
                one.completion.finish_reason,
                model,
                one.seed,
            ),
        )
        for one, text, judgement in zip(samples, texts, judgements, strict=True)
    ]


def _completions(
    engine: Engine, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
) -> list[Completion]:
    """One for each chat. Equal chats have the same greedy completion, so it is made once; bundles of one
    problem that are shown without references have equal chats.
    """
    if sampling.temperature > 0:
        return engine.generate(chats, sampling, seeds)
    keys = [chat_key(chat) for chat in chats]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    places = sorted(first.values())
    made = engine.generate([chats[i] for i in places], sampling, [seeds[i] for i in places])
    by_key = {keys[i]: completion for i, completion in zip(places, made, strict=True)}
    return [by_key[key] for key in keys]
