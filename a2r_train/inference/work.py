"""One problem going through the stages: its references, votes and tokens, and who gives its answer. The loop
and the endpoint both decide here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from a2r_train.engines import Completion
from a2r_train.inference.adaptive import Adaptive
from a2r_train.inference.price import no_tokens
from a2r_train.prompts import PromptConfig
from a2r_train.records import Reference
from a2r_train.verify import extract, majority

SYNTHESIZER, VOTE, AGREEMENT = "synthesizer", "vote", "agreement"  # who gave an answer


@dataclass
class Work:
    """One problem going through the stages; `syntheses` are what stage 2 gave, in its last round.

    The answers of the references are read by `explorer_prompt`, those of the syntheses by `prompt`, as each
    model was asked by its own.
    """

    problem: str
    verifier: str
    prompt: PromptConfig
    explorer_prompt: PromptConfig
    answered_by: str = SYNTHESIZER
    error: str = ""
    references: list[Reference] = field(default_factory=list)
    syntheses: list[Reference] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=no_tokens)

    @property
    def answers(self) -> list[str]:
        """The answers of the references."""
        return [reference.answer for reference in self.references]

    @property
    def population(self) -> list[Reference]:
        """The latest texts: the references, until there are syntheses."""
        return self.syntheses or self.references

    def groups(self) -> list[list[int]]:
        """The votes of the population, as groups of indices, the most frequent answer first; [] without
        votes.
        """
        answers = [reference.answer for reference in self.population]
        return majority(answers, self.verifier).groups

    def best(self, groups: list[list[int]]) -> int:
        """The index of the text that wins the vote; the first text if there are no votes."""
        return groups[0][0] if groups else 0

    def reference(self, text: str, completion_tokens: int = 0) -> Reference:
        """A completion of the explorer, and the answer that is read from it."""
        return self._read(text, completion_tokens, self.explorer_prompt)

    def synthesis(self, text: str, completion_tokens: int = 0) -> Reference:
        """A completion of the synthesizer, and the answer that is read from it."""
        return self._read(text, completion_tokens, self.prompt)

    def _read(self, text: str, completion_tokens: int, prompt: PromptConfig) -> Reference:
        answer = extract(prompt.judged_text(text), self.verifier, self.problem)
        return Reference(text, answer, tokens=completion_tokens)

    def add_explored(self, text: str, completion: Completion) -> None:
        """Add a completion as the last reference."""
        self.references.append(self.reference(text, completion.completion_tokens))
        # read once for all references; a request that was never answered counts none
        self.tokens["explorer_prompt"] = max(self.tokens["explorer_prompt"], completion.prompt_tokens)
        self.tokens["references"] += completion.completion_tokens

    def skips(self, adaptive: Adaptive | None) -> bool:
        """Whether the references answer without a synthesis, as enough of them agree."""
        if adaptive and adaptive.skips(self.answers, self.verifier):
            self.answered_by = AGREEMENT
        return self.answered_by == AGREEMENT

    def settle(
        self, syntheses: Sequence[Reference | None], groups: list[list[int]] | None = None
    ) -> list[Reference]:
        """The answer in place of each synthesis: itself if it can be read, otherwise the reference that wins
        the vote. None is a synthesis that was not written.

        Without votes, a synthesis that cannot be read stays. `groups` are those of the references, if known.
        """
        if groups is None:
            groups = [] if all(one and one.answer for one in syntheses) else self.groups()
        vote = self.references[self.best(groups)]
        settled = [one if one and (one.answer or not groups) else vote for one in syntheses]
        if any(one is vote for one in settled):
            self.answered_by = VOTE
        return settled

    def add_round(self, syntheses: list[Reference]) -> None:
        """Take the syntheses of a round as the next population. If none of them can be read, the population
        before stays, if it has votes: that of the last round, or the references, whose vote then answers.
        """
        if any(one.answer for one in syntheses) or not self.groups():
            self.answered_by, self.syntheses = SYNTHESIZER, syntheses
        elif not self.syntheses:
            self.answered_by = VOTE

    def count_syntheses(self, completions: Sequence[Completion]) -> None:
        self.tokens["synthesizer_prompt"] += sum(c.prompt_tokens for c in completions)
        self.tokens["synthesis"] += sum(c.completion_tokens for c in completions)
