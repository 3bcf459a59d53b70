"""One problem going through the stages: its references, syntheses, votes and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from a2r_train.engines import Completion
from a2r_train.prompts import PromptConfig
from a2r_train.records import Reference
from a2r_train.verify import extract, majority

SYNTHESIZER, VOTE, UNANIMOUS = "synthesizer", "vote", "unanimous"  # who gave an answer


@dataclass
class Work:
    """One problem going through the stages; `syntheses` are those of the last round.

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
    tokens: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("explorer_prompt", "references", "synthesizer_prompt", "synthesis"), 0
        )
    )

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
        return self._read(text, completion_tokens, self.explorer_prompt)

    def _read(self, text: str, completion_tokens: int, prompt: PromptConfig) -> Reference:
        answer = extract(prompt.judged_text(text), self.verifier, self.problem)
        return Reference(text, answer, tokens=completion_tokens)

    def add_explored(self, text: str, completion: Completion) -> None:
        """Add a completion as the last reference."""
        self.add_reference(self.reference(text, completion.completion_tokens), completion.prompt_tokens)

    def add_reference(self, reference: Reference, prompt_tokens: int, at: int | None = None) -> None:
        """Add a reference: as the last one, or before the one at index `at`."""
        self.references.insert(len(self.references) if at is None else at, reference)
        # read once for all references; a request that was never answered counts none
        self.tokens["explorer_prompt"] = max(self.tokens["explorer_prompt"], prompt_tokens)
        self.tokens["references"] += reference.tokens

    def add_syntheses(self, texts: list[str], completions: Sequence[Completion]) -> None:
        """Take the syntheses of a round. If none of them can be read, the population before stays, if it can:
        that of the last round, or the references, whose vote then answers.
        """
        made = [
            self._read(text, completion.completion_tokens, self.prompt)
            for text, completion in zip(texts, completions, strict=True)
        ]
        if any(one.answer for one in made) or not self.groups():
            self.answered_by, self.syntheses = SYNTHESIZER, made
        elif not self.syntheses:
            self.answered_by = VOTE
        self.tokens["synthesizer_prompt"] += sum(c.prompt_tokens for c in completions)
        self.tokens["synthesis"] += sum(c.completion_tokens for c in completions)
