"""What a client has already read of its syntheses, so that another try continues where the last one broke
off; who reads no stream gets the whole text of one try.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

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
    """The n syntheses of a request, as far as they have been sent. If not `streamed`, each is sent at its
    end, and what a broken try wrote of it is forgotten.
    """

    def __init__(self, n: int, streamed: bool) -> None:
        self._streamed = streamed
        self._thinking = [_Channel() for _ in range(n)]
        self._text = [_Channel() for _ in range(n)]
        self._ended = [False] * n

    def again(self, places: Iterable[int]) -> None:
        """Another try of the syntheses in these places begins."""
        for place in places:
            if self._streamed:
                self._thinking[place].again()
                self._text[place].again()
            elif not self._ended[place]:
                self._thinking[place], self._text[place] = _Channel(), _Channel()

    def take(self, piece: Piece) -> Piece | None:
        """The part of a piece that is still to be sent. Raises UpstreamError if it does not match what was
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
        self._ended[piece.index] = bool(piece.finish_reason)
        if not self._streamed:
            thinking, text = (
                "".join(self._thinking[piece.index].parts),
                "".join(self._text[piece.index].parts),
            )
        new = replace(piece, thinking=thinking, text=text)
        return new if piece.finish_reason or (self._streamed and (thinking or text)) else None

    def open(self) -> list[int]:
        """The syntheses that have not ended."""
        return [index for index, ended in enumerate(self._ended) if not ended]

    def began(self, index: int) -> bool:
        """Whether the client has read some text of a synthesis."""
        return self._streamed and bool(self._text[index].parts)
