"""What an answer cost: tokens and seconds by stage, the votes, and how the client sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from a2r_train.inference.price import Price, dollars
from a2r_train.inference.work import Work
from a2r_train.records import Reference


@dataclass
class Report:
    """What is reported about an answer, gathered while it is made.

    The tokens of `work` are over all calls, as the servers count them, or by our own count where they do not.
    seconds: by stage; `first_token` is from the end of stage 1 to the first token of stage 2. groups: those
    of the vote.
    """

    k: int
    seed: int
    work: Work
    groups: list[list[int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    dollars: float | None = None

    @property
    def votes(self) -> list[tuple[str, int]]:
        """Answers and their counts, the most frequent first."""
        return [(self.work.references[group[0]].answer, len(group)) for group in self.groups]

    @property
    def agreement(self) -> float:
        """The share of the references that have the most frequent answer; 0 if none has an answer."""
        return self.votes[0][1] / len(self.work.references) if self.votes else 0.0

    def price(self, prices: Mapping[str, Price], explorer: str, synthesizer: str) -> None:
        """Set the dollars, if there is a price table."""
        if prices:
            self.dollars = dollars(self.work.tokens, prices, explorer, synthesizer)

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage block, summed over both stages; the references count as reasoning."""
        tokens = self.work.tokens
        prompt = tokens["explorer_prompt"] + tokens["synthesizer_prompt"]
        completion = tokens["references"] + tokens["synthesis"]
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {"reasoning_tokens": tokens["references"]},
        }

    def said(self) -> dict[str, Any]:
        """What a client always gets: who answered, and what went wrong."""
        return {"answered_by": self.work.answered_by, "warnings": self.warnings}

    def block(self, with_references: bool) -> dict[str, Any]:
        """The whole report, under the key `a2r`."""
        found: dict[str, Any] = {
            **self.said(),
            "k": self.k,
            "references_used": len(self.work.references),
            "agreement": round(self.agreement, 4),
            "votes": [{"answer": answer, "count": count} for answer, count in self.votes],
            "tokens": self.work.tokens,
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            "seed": self.seed,
        }
        if self.dollars is not None:
            found["dollars"] = self.dollars
        if with_references:
            found["references"] = [shown(reference) for reference in self.work.references]
        return found


def shown(reference: Reference) -> dict[str, Any]:
    """A reference as a client sees it."""
    return {"text": reference.text, "answer": reference.answer, "tokens": reference.tokens}
