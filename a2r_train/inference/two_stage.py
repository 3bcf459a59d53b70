"""The loop as a Python object: an explorer and a synthesizer, each with its own engine, answer problems
together.

from a2r_train.inference.two_stage import TwoStage
answer = TwoStage("path/of/explorer", "path/of/synthesizer", k=4).solve("How many ...?")
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from a2r_train.data.task import explorer_prompt_of, prompt_of, within
from a2r_train.engines import Completion, Engine, EngineArguments, Sampling, load_engine
from a2r_train.engines.base import UNANSWERED
from a2r_train.errors import InputError, PromptTooLong
from a2r_train.inference.adaptive import Adaptive, check_votes
from a2r_train.inference.price import Price, dollars
from a2r_train.inference.rounds import Rounds
from a2r_train.inference.work import SYNTHESIZER, VOTE, Work
from a2r_train.models import known_context
from a2r_train.prompts import Chat, PromptConfig, Prompter
from a2r_train.records import Problem, Reference, seed_of
from a2r_train.verify import check_verifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What the loop returns for one problem.

    answered_by: `synthesizer`; `agreement`, if the references agree and it was not asked; or `vote` of the
    references, if its prompt was refused, its request failed, or its answer cannot be read. error: that the
    synthesizer's prompt does not fit, and why; "" if it does. tokens: by stage, as in a report. seconds: the
    time of the problem's batch, divided by its number of problems. cost: dollars by the price table, with the
    explorer's prompt counted once; 0 without a table.
    """

    problem: str
    answer: str
    text: str
    references: list[Reference]
    tokens: dict[str, int]
    seconds: float
    cost: float
    answered_by: str = SYNTHESIZER
    error: str = ""


class TwoStage:
    """Explorer and synthesizer; each is an Engine, or the name of a model, which then runs on `engine` (at
    `endpoint`).

    k references are sampled per problem; without an explorer only `synthesise` works. `verifier` says how
    answers are extracted (if None, the problem's own, and `math` for plain text). A trained model's folder
    brings its prompt along; an explorer without one gets the synthesizer's prompt, as in its training.
    `prices` maps the names of models to their prices. `adaptive` samples no more references than a problem
    needs; with `rounds`, its population replaces k.
    """

    def __init__(
        self,
        explorer: Engine | str | None,
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
        adaptive: Adaptive | None = None,
        rounds: Rounds | None = None,
    ) -> None:
        if adaptive and (rounds or adaptive.first > k):
            raise InputError("adaptive: expected no rounds next to it, and first at most k")
        if k < 1:
            raise InputError(f"k is {k}; expected at least 1")
        check_verifier(verifier or "math")
        self.explorer = _engine(engine, explorer, endpoint) if explorer else None
        both = self.explorer if isinstance(explorer, str) and explorer == synthesizer else None
        self.synthesizer = both or _engine(engine, synthesizer, endpoint)  # one model is loaded once
        self.k, self.verifier, self.seed = k, verifier, seed
        self.exploring, self.synthesising = exploring or Sampling(), synthesising or Sampling(temperature=0.0)
        self.prices, self.adaptive, self.rounds = dict(prices or {}), adaptive, rounds
        self._explorer_config = config = prompt or prompt_of(self.synthesizer.name)
        if self.explorer:
            self._explorer_config = explorer_prompt_of(self.explorer.name, config, prompt is not None)
            self._explorer_prompter = Prompter(self.explorer.tokenizer, self._explorer_config)
        self._by_context = False  # whether the context sets the prompt's budget
        if isinstance(synthesizer, str):  # of an engine, only its owner knows the context
            most = known_context(synthesizer) - self.synthesising.max_completion_tokens
            self._by_context = 0 < most < config.max_prompt_tokens
            config = within(config, most)
        self._prompter = Prompter(self.synthesizer.tokenizer, config)

    def solve(self, problem: Problem | str) -> Answer:
        """Solve one problem. Raises InputError if its prompt does not fit the synthesizer."""
        return _fitting(self._solved([problem])[0])

    def solve_all(self, problems: Sequence[Problem | str]) -> list[Answer]:
        """Solve problems in one batch per stage; answers come in the order of the problems. One whose prompt
        does not fit the synthesizer gets an `error`, and the vote of its references.
        """
        return _told(self._solved(problems))

    def _solved(self, problems: Sequence[Problem | str]) -> list[Answer]:
        began = time.monotonic()
        works = [self._work(problem) for problem in problems]
        self._explore(works)
        if self.rounds:
            for turn in range(self.rounds.rounds):
                self._aggregate(works, self.rounds, turn)
        else:
            self._synthesise(works)
        return self._answers(works, began)

    def synthesise(self, problem: Problem | str, references: Sequence[str]) -> Answer:
        """Answer one problem from existing references. Raises InputError if they do not fit."""
        return _fitting(self._synthesised([problem], [references])[0])

    def synthesise_all(
        self, problems: Sequence[Problem | str], references: Sequence[Sequence[str]]
    ) -> list[Answer]:
        """Answer problems in one batch, each from its own references, whose tokens are not counted; what does
        not fit gets an `error`, as in `solve_all`.
        """
        return _told(self._synthesised(problems, references))

    def _synthesised(
        self, problems: Sequence[Problem | str], references: Sequence[Sequence[str]]
    ) -> list[Answer]:
        began = time.monotonic()
        works = [self._work(problem) for problem in problems]
        for work, texts in zip(works, references, strict=True):
            if not texts:
                raise InputError(f"{work.problem[:60]!r}: no references; expected at least one")
            work.references += [work.reference(text) for text in texts]
        self._synthesise(works)
        return self._answers(works, began)

    def _work(self, problem: Problem | str) -> Work:
        text, verifier = (
            (problem, "math") if isinstance(problem, str) else (problem.problem, problem.verifier)
        )
        return Work(text, self.verifier or verifier, self._prompter.config, self._explorer_config)

    def _explore(self, works: Sequence[Work]) -> None:
        """Sample the references: all at once, or, if adaptive, the first ones and then one at a time where
        more may still help.
        """
        if not self.explorer:
            raise InputError("no explorer to sample references; name one, or pass references to `synthesise`")
        for verifier in {work.verifier for work in works} if self.adaptive else ():
            check_votes(verifier)  # before hours of sampling, not after
        most = self.rounds.population if self.rounds else self.k
        sizes = self.adaptive.sizes(most) if self.adaptive else [most]
        asking = list(works)
        for size in sizes:
            pairs = [(work, len(work.references) + i) for work in asking for i in range(size)]
            chats = [self._explorer_prompter.explorer(work.problem) for work, _ in pairs]
            seeds = [seed_of(self.seed, work.problem, sample) for work, sample in pairs]
            made = self.explorer.generate(chats, self.exploring, seeds) if pairs else []
            for (work, _), completion in zip(pairs, made, strict=True):
                text = self._explorer_prompter.complete(completion.text)
                work.add_explored(text, completion)
            if self.adaptive:
                asking = [work for work in asking if not self.adaptive.stops(work.answers, work.verifier)]

    def _synthesise(self, works: Sequence[Work]) -> None:
        """Synthesise where the vote of the references does not answer already."""
        works = [work for work in works if not work.skips(self.adaptive)]
        fitting = [(work, chats[0]) for work in works if (chats := self._chats(work, [work.references]))]
        works, chats = [work for work, _ in fitting], [chat for _, chat in fitting]
        seeds = [seed_of(self.seed, "synthesis", w.problem) for w in works]
        made = self.synthesizer.generate(chats, self.synthesising, seeds) if works else []
        for work, completion in zip(works, made, strict=True):
            if completion.finish_reason in UNANSWERED:  # the engine has warned
                work.syntheses = work.settle([None])
                continue
            work.syntheses = work.settle([self._read(work, completion)])
            work.count_syntheses([completion])

    def _read(self, work: Work, completion: Completion) -> Reference:
        return work.synthesis(self._prompter.complete(completion.text), completion.completion_tokens)

    def _chats(self, work: Work, groups: Sequence[Sequence[Reference]]) -> list[Chat]:
        """The synthesizer's chat for each group of references; [] and an error if one does not fit."""
        try:
            return [self._prompter.synthesizer(work.problem, group).chat for group in groups]
        except PromptTooLong as error:
            remedy = (
                "shorten the question, lower k, or lower max_completion_tokens to leave more of the context"
            )
            work.error = f"{error.says}: {remedy}" if self._by_context else str(error)
            work.answered_by = VOTE
            return []

    def _aggregate(self, works: Sequence[Work], rounds: Rounds, turn: int) -> None:
        """One round: each member of the next population is a synthesis of a subset of this one."""
        chats, seeds, fitting = list[Chat](), list[int](), list[Work]()
        for work in works:
            subsets = rounds.subsets(self.seed, work.problem, turn)
            chosen = [[work.population[i] for i in members] for members in subsets]
            if not work.error and (asked := self._chats(work, chosen)):
                fitting.append(work)
                chats += asked
                seeds += [seed_of(self.seed, "round", turn, at, work.problem) for at in range(len(asked))]
        made = self.synthesizer.generate(chats, self.synthesising, seeds) if chats else []
        for i, work in enumerate(fitting):
            part = made[i * rounds.population : (i + 1) * rounds.population]
            work.add_round([self._read(work, completion) for completion in part])
            work.count_syntheses(part)

    def _answers(self, works: Sequence[Work], began: float) -> list[Answer]:
        seconds = (time.monotonic() - began) / max(1, len(works))
        return [self._answer(work, seconds) for work in works]

    def _answer(self, work: Work, seconds: float) -> Answer:
        """The majority of the last texts: of the single synthesis, or of the last population."""
        best = work.population[work.best(work.groups())]
        explorer = self.explorer.name if self.explorer else ""
        return Answer(
            work.problem,
            best.answer,
            best.text,
            work.references,
            work.tokens,
            seconds,
            dollars(work.tokens, self.prices, explorer, self.synthesizer.name),
            work.answered_by,
            work.error,
        )


def _told(answers: list[Answer]) -> list[Answer]:
    """The answers; logs how many have an error."""
    wrong = [answer for answer in answers if answer.error]
    if wrong:
        log.warning(
            "%d of %d problems do not fit the synthesizer, and have an `error`; the first, %r: %s",
            len(wrong),
            len(answers),
            wrong[0].problem[:40],
            wrong[0].error,
        )
    return answers


def _fitting(answer: Answer) -> Answer:
    if answer.error:
        raise InputError(answer.error)
    return answer


def _engine(kind: str, model: Engine | str, endpoint: str) -> Engine:
    """An engine; it reserves less than half a GPU, because with vLLM both models share one."""
    if not isinstance(model, str):
        return model
    return load_engine(model, EngineArguments(engine=kind, endpoint=endpoint, gpu_memory_utilization=0.45))
