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
    work = [(item, sample) for item in items for sample in range(samples)]
    seeds = [seed_of(seed, item.id, sample) for item, sample in work]
    completions = _completions(engine, [chats[item.id] for item, _ in work], sampling, seeds)
    texts = [prompter.complete(completion.text) for completion in completions]
    judgements = judge_all(
        [
            (prompter.config.judged_text(text), item.answer, item.verifier)
            for text, (item, _) in zip(texts, work, strict=True)
        ],
        [row_of(item) for item, _ in work],
    )
    return [
        (
            item.id,
            sample,
            JudgedSample(
                text,
                judgement.answer,
                judgement.verdict,
                completion.prompt_tokens,
                completion.completion_tokens,
                completion.finish_reason,
                engine.name,
                sample_seed,
            ),
        )
        for (item, sample), text, judgement, completion, sample_seed in zip(
            work, texts, judgements, completions, seeds, strict=True
        )
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
