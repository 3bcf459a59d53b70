"""The loop as a Python object: an explorer and a synthesizer, each with its own engine, answer problems together.

from a2r_train.two_stage import TwoStage
answer = TwoStage("path/of/explorer", "path/of/synthesizer", k=4).solve("How many ...?")
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from a2r_train.engines import Completion, Engine, Sampling, load_engine
from a2r_train.explore import seed_of
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Problem
from a2r_train.synthesise import prompt_of
from a2r_train.verify import extract


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens that one model reads and writes."""

    prompt: float = 0.0
    completion: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What the loop returns for one problem.

    tokens: by stage, as in a report. seconds: of the batch that the problem was in, divided by its problems. cost: dollars by
    the price table, the explorer's prompt paid once; 0 without a table.
    """

    problem: str
    answer: str
    text: str
    references: list[str]
    reference_answers: list[str]
    tokens: dict[str, int]
    seconds: float
    cost: float


class TwoStage:
    """Explorer and synthesizer; each is an Engine, or the name of a model, which then runs on `engine` (at `endpoint`).

    k references are sampled for a problem. `verifier` says how answers are extracted (if None: the problem's own, and `math`
    for plain text). A trained synthesizer's folder brings its prompt along. `prices` maps the names of models to their prices.
    """

    def __init__(
        self,
        explorer: Engine | str,
        synthesizer: Engine | str,
        *,
        engine: str = "transformers",
        endpoint: str = "",
        k: int = 4,
        verifier: str | None = None,
        prompt: PromptConfig | None = None,
        exploring: Sampling | None = None,
        synthesising: Sampling | None = None,
        prices: Mapping[str, Price] | None = None,
        seed: int = 0,
    ) -> None:
        self.explorer = _engine(engine, explorer, endpoint)
        self.synthesizer = _engine(engine, synthesizer, endpoint)
        self.k, self.verifier, self.seed = k, verifier, seed
        self.exploring, self.synthesising = exploring or Sampling(), synthesising or Sampling(temperature=0.0)
        self.prices = dict(prices or {})
        config = prompt or prompt_of(self.synthesizer.name)
        self._explorer_prompter = Prompter(self.explorer.tokenizer, config)
        self._prompter = Prompter(self.synthesizer.tokenizer, config)

    def solve(self, problem: Problem | str) -> Answer:
        """Solve one problem."""
        return self.solve_all([problem])[0]

    def solve_all(self, problems: Sequence[Problem | str]) -> list[Answer]:
        """Solve problems as one batch of each stage; answers come in the order of the problems."""
        began = time.monotonic()
        texts = [p if isinstance(p, str) else p.problem for p in problems]
        rollouts = self._explore(texts)
        references = [[self._explorer_prompter.complete(c.text) for c in group] for group in rollouts]
        verifiers = [self.verifier or ("math" if isinstance(p, str) else p.verifier) for p in problems]
        answers = [[extract(t, verifier) for t in group] for group, verifier in zip(references, verifiers, strict=True)]
        prompts = [self._prompter.synthesizer(*parts).chat for parts in zip(texts, references, answers, strict=True)]
        seeds = [seed_of(self.seed, "synthesis", text) for text in texts]
        completions = self.synthesizer.generate(prompts, self.synthesising, seeds)
        seconds = (time.monotonic() - began) / max(1, len(texts))
        parts = zip(texts, completions, rollouts, references, answers, verifiers, strict=True)
        return [self._answer(text, c, group, r, a, v, seconds) for text, c, group, r, a, v in parts]

    def _explore(self, texts: Sequence[str]) -> list[list[Completion]]:
        chats = [self._explorer_prompter.explorer(text) for text in texts for _ in range(self.k)]
        seeds = [seed_of(self.seed, text, sample) for text in texts for sample in range(self.k)]
        flat = self.explorer.generate(chats, self.exploring, seeds)
        return [flat[at : at + self.k] for at in range(0, len(flat), self.k)]

    def _answer(
        self,
        problem: str,
        synthesis: Completion,
        group: list[Completion],
        references: list[str],
        answers: list[str],
        verifier: str,
        seconds: float,
    ) -> Answer:
        text = self._prompter.complete(synthesis.text)
        tokens = {
            "explorer_prompt": group[0].prompt_tokens if group else 0,
            "references": sum(c.completion_tokens for c in group),
            "synthesizer_prompt": synthesis.prompt_tokens,
            "synthesis": synthesis.completion_tokens,
        }
        first = self.prices.get(self.explorer.name, Price())
        second = self.prices.get(self.synthesizer.name, Price())
        dollars = tokens["explorer_prompt"] * first.prompt + tokens["references"] * first.completion
        dollars += tokens["synthesizer_prompt"] * second.prompt + tokens["synthesis"] * second.completion
        return Answer(problem, extract(text, verifier), text, references, answers, tokens, seconds, dollars / 1e6)


def _engine(kind: str, model: Engine | str, endpoint: str) -> Engine:
    """The two models of the loop share a GPU, where they are vLLM's."""
    if not isinstance(model, str):
        return model
    return load_engine(kind, model, endpoint=endpoint, gpu_memory_utilization=0.45)
