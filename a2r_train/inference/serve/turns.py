"""Conversations: both stages are shown what came before the problem, as the chat template renders it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Self

from jinja2 import TemplateError

from a2r_train.inference.serve.errors import invalid
from a2r_train.inference.serve.request import Turn
from a2r_train.prompts import Chat, Prompter


class TurnPrompter(Prompter):
    """A Prompter whose chats may begin with a client's system text and turns, which count towards its
    budget.
    """

    _said_system: str = ""
    _earlier: Sequence[Turn] = ()

    def after(self, system: str, earlier: Sequence[Turn]) -> Self:
        """The same prompter, for problems at the end of this conversation.

        Raises ApiError for turns that the chat template does not take, such as two of the user in a row.
        """
        other = copy(self)
        other._said_system = self.neutralise(system)
        other._earlier = [Turn(turn.role, self.neutralise(turn.content)) for turn in earlier]
        try:
            other.text(other._chat("x"))
        except TemplateError as error:
            raise invalid("messages", f"the model's chat template refuses them ({str(error)[:80]})") from None
        return other

    def _chat(self, content: str) -> Chat:
        if not (self._said_system or self._earlier):
            return super()._chat(content)
        turns = [{"role": turn.role, "content": turn.content} for turn in self._earlier]
        turns.append({"role": "user", "content": content})
        system = "\n\n".join(filter(None, (self.config.system, self._said_system)))
        if system and self.config.system_in == "user":
            first = next(turn for turn in turns if turn["role"] == "user")
            first["content"] = f"{system}\n\n{first['content']}"
        elif system:
            turns.insert(0, {"role": "system", "content": system})
        return Chat(turns, self.config.chat_template_kwargs, self.config.date)

    def first_tokens(self, text: str, most: int) -> tuple[str, str]:
        """The first `most` tokens of a text, without a character that they end within, and the finish reason,
        which says whether it was cut.
        """
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) <= most:
            return text, "stop"
        return str(self.tokenizer.decode(ids[:most])).rstrip("\ufffd"), "length"
