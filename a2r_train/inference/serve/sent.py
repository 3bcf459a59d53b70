"""What a client has already read of its syntheses, so that another try continues where the last one broke
off; who reads no stream gets the whole text of one try.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from a2r_train.inference.serve.errors import UpstreamError
from a2r_train.inference.serve.upstream import Piece


@dataclass
class _Channel:
    """The thinking or the text of one synthesis; `held` is what another try still has to repeat."""

    parts: list[str] = field(default_factory=list)
    held: str = ""

    def take(self, part: str) -> str:
        """The new text in a part. Raises UpstreamError if it differs from what was sent before."""
        if not self.held:
            if part:
                self.parts.append(part)
            return part
        if self.held.startswith(part):
            self.held = self.held[len(part) :]
            return ""
        if not part.startswith(self.held):
            raise UpstreamError("diverged", "another try differs from what was already sent")
        new, self.held = part[len(self.held) :], ""
        self.parts.append(new)
        return new

    def again(self) -> None:
        self.held = "".join(self.parts)


class Sent:
    """The n syntheses of a request, as far as they have been written. If not `streamed`, nothing of them is
    sent before the end, and what a broken try wrote is forgotten. Their ends are not sent from here: the vote
    may answer in their place.
    """

    def __init__(self, n: int, streamed: bool) -> None:
        self._streamed = streamed
        self._thinking = [_Channel() for _ in range(n)]
        self._text = [_Channel() for _ in range(n)]
        self._ended = [""] * n  # the finish reasons

    def again(self, places: Iterable[int]) -> None:
        """Another try of the syntheses in these places begins."""
        for place in places:
            if self._streamed:
                self._thinking[place].again()
                self._text[place].again()
            elif not self._ended[place]:
                self._thinking[place], self._text[place] = _Channel(), _Channel()

    def take(self, piece: Piece) -> Piece | None:
        """The text of a piece that is still to be sent. Raises UpstreamError if it does not match what was
        sent.
        """
        if not self._streamed and self._ended[piece.index]:
            return None
        thinking = self._thinking[piece.index].take(piece.thinking)
        text = self._text[piece.index].take(piece.text)
        if self._ended[piece.index]:
            return None
        if piece.finish_reason and (self._thinking[piece.index].held or self._text[piece.index].held):
            raise UpstreamError("diverged", "another try ends before the end of what was already sent")
        self._ended[piece.index] = piece.finish_reason
        return Piece(piece.index, thinking, text) if self._streamed and (thinking or text) else None

    def written(self, index: int) -> Piece | None:
        """A whole synthesis with its finish reason; None if it has not ended."""
        if not self._ended[index]:
            return None
        thinking, text = "".join(self._thinking[index].parts), "".join(self._text[index].parts)
        return Piece(index, thinking, text, self._ended[index])

    def open(self) -> list[int]:
        """The syntheses that have not ended."""
        return [index for index, ended in enumerate(self._ended) if not ended]

    def began(self, index: int) -> bool:
        """Whether the client has read some text of a synthesis."""
        return self._streamed and bool(self._text[index].parts)
