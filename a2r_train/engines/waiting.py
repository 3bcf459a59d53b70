"""The prompts of an engine that fills places itself: those that wait, and the batches they came in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from a2r_train.engines.base import Batch, Completion, token_ids_of, warn_refused
from a2r_train.prompts import Prompter


class Queue:
    """Batches, drawn as they are needed. Each prompt gets a number; in a batch, the shortest wait first.

    `prompts`, `seeds` and `rooms` (the most tokens of the completion) are by number, until the batch of the
    prompt is complete. `done`: the caller puts completions here. A prompt that fills the model's `context` is
    refused.
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        prompter: Prompter,
        context: int,
        max_completion_tokens: int,
        model: str,
    ) -> None:
        self._batches, self._prompter, self._model = iter(batches), prompter, model
        self._context, self._most = context, max_completion_tokens
        self._open: deque[range] = deque()  # the numbers of each batch that is not complete
        self._next, self._more = 0, True
        self.waiting: list[int] = []
        self.prompts: dict[int, list[int]] = {}
        self.seeds: dict[int, int] = {}
        self.rooms: dict[int, int] = {}
        self.done: dict[int, Completion] = {}

    def draw(self, count: int) -> None:
        """Draw batches until at least `count` prompts wait, or there are no more."""
        while self._more and len(self.waiting) < count:
            batch = next(self._batches, None)
            if batch is None:
                self._more = False
            else:
                self._add(batch)

    def _add(self, batch: Batch) -> None:
        chats, seeds = batch
        prompts = token_ids_of(self._prompter, chats)
        numbers = range(self._next, self._next + len(prompts))
        self._next = numbers.stop
        self._open.append(numbers)
        for i, prompt, seed in zip(numbers, prompts, seeds, strict=True):
            self.prompts[i], self.seeds[i] = prompt, seed
            self.rooms[i] = min(self._most, self._context - len(prompt))
        fit = [i for i in numbers if self.rooms[i] > 0]
        for i in set(numbers).difference(fit):
            self.done[i] = Completion("", len(self.prompts[i]), 0, "refused")
        warn_refused(self._model, len(numbers) - len(fit), len(numbers))
        self.waiting += sorted(fit, key=lambda i: (len(self.prompts[i]), i))

    def taken(self, count: int) -> list[int]:
        """The next `count` prompts, which no longer wait."""
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def completed(self) -> Iterator[list[Completion]]:
        """The completions of each batch that is complete, and before which all are."""
        while self._open and all(i in self.done for i in self._open[0]):
            numbers = self._open.popleft()
            for by_number in (self.prompts, self.seeds, self.rooms):
                for i in numbers:
                    del by_number[i]
            yield [self.done.pop(i) for i in numbers]
