"""Stage 2 on bundles: the synthesizer reads them and answers, and its answers are judged."""

from __future__ import annotations

from collections.abc import Container, Sequence

from a2r_train.engines import Engine, Sampling
from a2r_train.engines.judged import judged_samples
from a2r_train.prompts import Chat, Prompter
from a2r_train.records import Bundle, Synthesis


def syntheses_of(
    engine: Engine,
    prompter: Prompter,
    bundles: Sequence[Bundle],
    sampling: Sampling,
    *,
    samples: int = 1,
    seed: int = 0,
    plain: Container[str] = (),
    hint: str = "",
) -> list[Synthesis]:
    """`samples` judged syntheses of each bundle, ordered by bundle, then sample; bundles in `plain` are shown
    without references.

    `hint` is added to the end of the prompt; its {answer} is the gold one.
    """
    chats = {bundle.id: synthesizer_chat(prompter, bundle, bundle.id not in plain) for bundle in bundles}
    if hint:
        chats = {b.id: hinted(prompter, chats[b.id], hint, b.answer) for b in bundles}
    judged = judged_samples(engine, prompter, bundles, chats, sampling, samples, seed)
    return [sample.synthesis(bundle_id, at) for bundle_id, at, sample in judged]


def hinted(prompter: Prompter, chat: Chat, hint: str, answer: str) -> Chat:
    """The chat with the hint, which contains the answer, at the end of its last turn."""
    *before, last = chat
    content = f"{last['content']}\n\n{hint.format(answer=prompter.neutralise(answer))}"
    return Chat([*before, {**last, "content": content}], chat.template_kwargs, chat.day)


def synthesizer_chat(prompter: Prompter, bundle: Bundle, use_references: bool = True) -> Chat:
    """The chat for a bundle that training, solving and evaluation all use."""
    if not use_references:
        return prompter.explorer(bundle.problem)
    return prompter.synthesizer(bundle.problem, bundle.references).chat
