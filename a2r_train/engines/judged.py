"""Completions of an engine, judged: what a rollout and a synthesis have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from a2r_train.engines import (
    Engine,
    Sampling,
)
from a2r_train.prompts import Chat, Prompter
from a2r_train.records import (
    Bundle,
    Problem,
    Verdict,
    seed_of,
)
from a2r_train.verify import judge_all


def judged_samples(
    engine: Engine,
    prompter: Prompter,
    items: Sequence[Problem] | Sequence[Bundle],
    chats: Mapping[str, Chat],
    sampling: Sampling,
    samples: int,
    seed: int,
) -> list[tuple[str, int, str, str, Verdict, int, int, str, str, int]]:
    """The fields of a Rollout or a Synthesis for `samples` answers to the chat of each item, in the order
    item, sample.
    """
    work = [(item, sample) for item in items for sample in range(samples)]
    seeds = [seed_of(seed, item.id, sample) for item, sample in work]
    completions = engine.generate([chats[item.id] for item, _ in work], sampling, seeds)
    texts = [prompter.complete(completion.text) for completion in completions]
    judged = judge_all(
        [(text, item.answer, item.verifier) for text, (item, _) in zip(texts, work, strict=True)]
    )
    return [
        (
            item.id,
            sample,
            text,
            j.answer,
            j.verdict,
            c.prompt_tokens,
            c.completion_tokens,
            c.finish_reason,
            engine.name,
            s,
        )
        for (item, sample), text, j, c, s in zip(work, texts, judged, completions, seeds, strict=True)
    ]
