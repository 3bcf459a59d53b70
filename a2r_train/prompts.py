"""The only place that renders a prompt: both stages, texts of references, neutralising, token budgets.

Every stage uses `Prompter`, so training and inference cannot differ. A trained checkpoint carries
the `PromptConfig` it was trained with (`prompt.yaml`), and is refused with another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from a2r_train.config import check_keys, load_yaml
from a2r_train.errors import InputError, PromptTooLong
from a2r_train.markers import (
    OF_THINKING,
    THINK_CLOSE,
    THINK_OPEN,
    broken,
    marker_pattern,
    own_thinking,
    template_of,
    thinking_markers,
)
from a2r_train.records import Reference
from a2r_train.sections import Parts, answer_in, check_sections, parts_of, verdict_starts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Messages = list[dict[str, str]]


class Chat(Messages):
    """Messages, and what their chat template is rendered with: its arguments, and the day that it shows."""

    def __init__(
        self,
        messages: Iterable[dict[str, str]],
        template_kwargs: Mapping[str, Any] | None = None,
        day: str = "",
    ) -> None:
        super().__init__(messages)
        self.template_kwargs, self.day = dict(template_kwargs or {}), day


ReferenceText = Literal["answer", "solution", "full"]

EXPLORER = "{problem}\n\nReason step by step, and put the final answer in \\boxed{{}}."
SYNTHESIZER = """\
Solve the problem below. Several earlier attempts at it follow as references. Any of them may be wrong, and \
all of them may be.
Check their steps against each other and against your own reasoning, keep what holds, and correct what does \
not.

Problem:
{problem}

{references}

Now write your own complete solution, and put the final answer in \\boxed{{}}."""
REFERENCE = "Reference {number}:\n{text}\nEnd of reference {number}."


# What rollouts depend on. If other keys change, the rollouts can be bundled again.
OF_ROLLOUTS = (
    *("explorer_template", "system", "system_in", "chat_template_kwargs", "answer_pattern", "thinking"),
    "date",
)


@dataclass(frozen=True)
class PromptConfig:
    """How prompts are rendered; lengths in tokens of the model that reads the prompt.

    reference: `answer` shows only the extracted answer, `solution` the text after `</think>`, `full`
    everything. `thinking` names the two markers of a thought if they are not `<think>`, and not found in
    the chat template. With `system_in: user` the system text goes into the user's turn. A template that shows
    the date shows `date`. A reference longer than max_reference_tokens keeps its end, where the answer
    stands. If the prompt is still longer than max_prompt_tokens, all references are cut to one smaller cap,
    never below min_reference_tokens. chat_template_kwargs go to the model's chat template, such as
    `enable_thinking: false`. answer_pattern says where the answer stands, such as `Answer: (.*)` or
    `<answer>(.*?)</answer>`; the last match counts. Without it a box, `####` or "the answer is" is looked
    for. `sections` are the headings of a synthesis: its own solution, its verdicts and its answer, which is
    looked for only in the last of them (`a2r_train.sections`).
    """

    explorer_template: str = EXPLORER
    synthesizer_template: str = SYNTHESIZER
    reference_template: str = REFERENCE
    reference_separator: str = "\n\n"
    system: str = ""
    reference: ReferenceText = "solution"
    max_reference_tokens: int = 2048
    min_reference_tokens: int = 16
    max_prompt_tokens: int = 16384
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    answer_pattern: str = ""
    thinking: tuple[str, ...] = ()
    system_in: str = "system"
    date: str = "2025-01-01"
    sections: dict[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.dump())

    def __post_init__(self) -> None:
        self._check_more()
        mappings = dict.fromkeys(("dict[str, Any]", "dict[str, str]"), (dict, "an object"))
        kinds = {"int": (int, "at least 1"), **mappings}
        for key in fields(self):
            if key.name == "thinking":
                continue
            value, (kind, expected) = getattr(self, key.name), kinds.get(str(key.type), (str, "text"))
            if type(value) is not kind or (isinstance(value, int) and value < 1):
                raise InputError(f"prompt: {key.name} is {value!r}; expected {expected}")
        for name, needed, more in (
            ("explorer_template", ("problem",), ()),
            ("synthesizer_template", ("problem", "references"), ()),
            ("reference_template", ("text",), ("number",)),
        ):
            for slot in needed:
                if f"{{{slot}}}" not in getattr(self, name):
                    raise InputError(f"prompt: {name} lacks the slot {{{slot}}}")
            try:
                getattr(self, name).format(**dict.fromkeys((*needed, *more), ""))
            except (LookupError, ValueError) as error:
                raise InputError(
                    f"prompt: {name} cannot be filled ({error}); write a literal brace twice: {{{{ }}}}"
                ) from None
        try:
            if self.answer_pattern and re.compile(self.answer_pattern).groups != 1:
                raise InputError(
                    f"prompt: answer_pattern {self.answer_pattern!r}; expected one group, as in Answer: (.*)"
                )
        except re.error as error:
            raise InputError(
                f"prompt: answer_pattern {self.answer_pattern!r} is not a regular expression ({error})"
            ) from None
        if self.reference not in ("answer", "solution", "full"):
            raise InputError(f"prompt: reference is {self.reference!r}; expected answer, solution or full")
        if self.sections:
            check_sections(self.sections, self.synthesizer_template, self.explorer_template)

    def _check_more(self) -> None:
        markers: Any = self.thinking
        texts = isinstance(markers, list | tuple) and all(
            isinstance(one, str) and one.strip() for one in markers
        )
        if not texts or len(markers) not in (0, 2) or len(set(markers)) != len(markers):
            raise InputError(f"prompt: thinking is {markers!r}; expected the two markers [open, close]")
        object.__setattr__(self, "thinking", tuple(markers))  # a list in the file
        if self.system_in not in ("system", "user"):
            raise InputError(f"prompt: system_in is {self.system_in!r}; expected system or user")
        try:
            date.fromisoformat(self.date)
        except (ValueError, TypeError):
            raise InputError(
                f"prompt: date is {self.date!r}; expected a day in quotes, such as '2025-01-01'"
            ) from None

    @staticmethod
    def load(path: str | Path | None) -> PromptConfig:
        """Read a prompt file; None gives the default prompt.

        Raises InputError for a missing file or an unknown key.
        """
        if not path:
            return PromptConfig()
        return PromptConfig.of(load_yaml(str(path)), str(path))

    @staticmethod
    def of(keys: dict[str, Any], place: str) -> PromptConfig:
        """The prompt of the keys that a file has. Raises InputError for an unknown one."""
        check_keys(keys, {key.name for key in fields(PromptConfig)}, place)
        return PromptConfig(**keys)

    def judged_text(self, text: str) -> str:
        """What a verifier reads of a text: the text, its answer section, or what the pattern finds, boxed."""
        if self.sections:
            text = answer_in(visible(text), self.sections)
        return self._matched(text)

    def parts_of(self, text: str) -> Parts | None:
        """The sections of a synthesis, as a verifier reads them; None if it has none."""
        parts = parts_of(visible(text), self.sections) if self.sections else None
        return parts and Parts(self._matched(parts.solution), parts.verdicts, self._matched(parts.answer))

    def verdict_starts(self, text: str, references: int) -> list[int | None]:
        """Where in a synthesis the verdict on each reference begins; see `sections.verdict_starts`."""
        shown = visible(text)
        before = len(text.rstrip()) - len(shown)
        starts = verdict_starts(shown, self.sections, references)
        return [None if start is None else before + start for start in starts]

    def _matched(self, text: str) -> str:
        if not self.answer_pattern:
            return text
        matches = re.findall(
            self.answer_pattern, visible(text), re.DOTALL if "<" in self.answer_pattern else 0
        )
        return rf"\boxed{{{matches[-1].strip()}}}" if matches else ""

    def dump(self) -> str:
        """The file's text. Without sections it has no such key, so that folders and measurements without it
        stay valid.
        """
        keys = {key: value for key, value in asdict(self).items() if key != "sections" or value}
        return yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Rendered:
    """A synthesizer prompt, its length, and how many references had to be cut to fit."""

    chat: Chat
    prompt_tokens: int
    cut_references: int


def visible(text: str) -> str:
    """The text after the last `</think>`; "" if the thinking was opened and never closed."""
    _, closed, tail = text.rpartition(THINK_CLOSE)
    if closed:
        return tail.strip()
    return "" if THINK_OPEN in text else text.strip()


class Prompter:
    """Renders chats for one tokenizer. Raises InputError for a tokenizer without a chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PromptConfig | None = None) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template; use an instruct model"
            )
        self.tokenizer, self.config = tokenizer, config or PromptConfig()
        self.chat_template = dated(template_of(tokenizer), self.config.date)
        self._thinking = thinking_markers(tokenizer, self.config.thinking)
        self._markers = marker_pattern(tokenizer, self._thinking, self.config.reference_template)
        self._check_system()
        generation_prompt = self.text(self._chat("x"))
        self.thinking_openers = (THINK_OPEN, *(opened for opened, _ in self._thinking))
        self.opens_thinking = self.opens(generation_prompt)
        self._own_thinking = own_thinking(tokenizer, self.config.thinking, generation_prompt)

    def explorer(self, problem: str) -> Chat:
        return self._chat(self.config.explorer_template.format(problem=self.neutralise(problem)))

    def synthesizer(self, problem: str, references: Sequence[Reference], template: str = "") -> Rendered:
        """The synthesizer's chat over references in the given order.

        `template` replaces the configured one if a baseline asks something else about the references; if it
        is longer, the prompt may be longer by as much.

        Raises PromptTooLong if it cannot be made to fit max_prompt_tokens.
        """
        shown = [self.shown(reference.text, reference.answer) for reference in references]
        lengths = list(map(len, ids := [self.ids(text) for text in shown]))
        cap = self.config.max_reference_tokens
        longer = self.count(template) - self.count(self.config.synthesizer_template) if template else 0
        most = self.config.max_prompt_tokens + max(0, longer)
        while True:
            shown_now = [self.cut(text, some, cap) for text, some in zip(shown, ids, strict=True)]
            chat = self.synthesizer_chat(problem, shown_now, template)
            length = len(self.token_ids(chat))
            over = length - most
            if over <= 0:
                return Rendered(chat, length, sum(n > cap for n in lengths))
            longest = min(cap, max(lengths, default=0))
            if longest <= self.config.min_reference_tokens:
                raise PromptTooLong(
                    f"prompt of {length} tokens over the budget of {most} with references cut to "
                    f"{self.config.min_reference_tokens} tokens",
                    f"raise max_prompt_tokens, lower k, or leave the problem out ({problem[:40]!r})",
                )
            still_long = sum(n >= longest for n in lengths)
            cap = max(self.config.min_reference_tokens, longest - max(1, -(-over // still_long)))

    def text(self, chat: Messages) -> str:
        """The chat with the generation prompt, as the model reads it."""
        return self._render(chat, add_generation_prompt=True)

    def conversation(self, chat: Chat, completion: str) -> str:
        """The chat with a completion, as the chat template writes it."""
        turns = [*chat, {"role": "assistant", "content": completion}]
        return self._render(Chat(turns, chat.template_kwargs, chat.day), add_generation_prompt=False)

    def opens(self, generation_prompt: str) -> bool:
        """Whether a prompt ends with the opened thought."""
        return generation_prompt.rstrip().endswith(self.thinking_openers)

    def _render(self, chat: Messages, add_generation_prompt: bool) -> str:
        day = getattr(chat, "day", "") or self.config.date
        rendered: Any = self.tokenizer.apply_chat_template(
            chat,
            chat_template=dated(template_of(self.tokenizer), day),
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **self.template_arguments(chat),
        )
        return str(rendered)

    def template_arguments(self, chat: Messages) -> dict[str, Any]:
        """What the chat template is rendered with; a server that gets the same renders the same prompt."""
        day = getattr(chat, "day", "") or self.config.date
        dates = {"date_string": f"{date.fromisoformat(day):%d %b %Y}"}
        return {
            **(dates if "date_string" in self.chat_template else {}),
            **getattr(chat, "template_kwargs", {}),
        }

    def _check_system(self) -> None:
        """Raise InputError for a template that refuses the system turn of the recipe."""
        from jinja2 import TemplateError

        try:
            self.text(self._chat("x"))
        except TemplateError as error:
            if not self.config.system or self.config.system_in == "user":
                raise
            raise InputError(
                f"{self.tokenizer.name_or_path}: its chat template refuses "
                f"a system turn ({str(error)[:80]}); "
                "set `system_in: user` in the prompt file, or leave `system` out"
            ) from None

    def end_of_turn(self) -> int:
        """The token that ends an assistant's turn in the chat template; the tokenizer's eos if the template
        has none.

        Raises InputError if there is neither.
        """
        found = self._turn_end()
        if found is None:
            raise InputError(
                f"{self.tokenizer.name_or_path}: neither its chat template nor its eos_token ends a "
                "turn; use an instruct model"
            )
        return found

    def stop_ids(self) -> list[int]:
        """What ends a completion: the end of a turn, and the tokenizer's eos; none if it has neither."""
        return sorted({int(i) for i in (self._turn_end(), self.tokenizer.eos_token_id) if i is not None})

    def _turn_end(self) -> int | None:
        tokenizer: Any = self.tokenizer
        said = "0said0"  # not a word of any template, nor a part of one
        chat = Chat([{"role": "user", "content": "x"}], self.config.chat_template_kwargs, self.config.date)
        tail = self.conversation(chat, said).rpartition(said)[2]
        ids = tokenizer(tail.lstrip(), add_special_tokens=False)["input_ids"]
        special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        return ids[0] if ids and ids[0] in special else tokenizer.eos_token_id  # type: ignore[no-any-return]

    def decode(self, ids: Sequence[int]) -> str:
        """A completion without special tokens, except those of a thought, which become `<think>` and
        `</think>`.
        """
        tokenizer: Any = self.tokenizer
        shown = [i for i in ids if i not in self._hidden]
        return self._marked(str(tokenizer.decode(shown, skip_special_tokens=False)))

    def decoded(self, text: str) -> str:
        """The same of a completion that a server has decoded with its special tokens."""
        hidden = sorted(self._hidden.values(), key=len, reverse=True)
        return self._marked(re.sub("|".join(map(re.escape, hidden)), "", text) if hidden else text)

    def _marked(self, text: str) -> str:
        text = self.canonical(text)
        for token in self._parts_of_markers:  # one that closed no thought
            text = text.replace(token, "")
        return text

    @cached_property
    def _special(self) -> dict[int, str]:
        tokenizer: Any = self.tokenizer
        special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        return special | {
            i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }

    @property
    def loses_thinking(self) -> bool:
        """Whether a completion decoded without special tokens may lack `<think>` and `</think>`."""
        return bool(self._thinking) or not {THINK_OPEN, THINK_CLOSE}.isdisjoint(self._special.values())

    @cached_property
    def _layout(self) -> dict[int, str]:
        """The special tokens that do not mark a thought, or are only a part of its markers."""
        whole = {marker for pair in self._thinking for marker in pair}
        return {i: t for i, t in self._special.items() if not OF_THINKING.search(t) and t not in whole}

    @cached_property
    def _parts_of_markers(self) -> set[str]:
        return {
            t for t in self._layout.values() if any(t in marker for pair in self._thinking for marker in pair)
        }

    @cached_property
    def _hidden(self) -> dict[int, str]:
        return {i: token for i, token in self._layout.items() if token not in self._parts_of_markers}

    def canonical(self, text: str) -> str:
        """A completion with `<think>` and `</think>` in place of the model's own markers of a thought."""
        for opened, closed in self._thinking:
            text = text.replace(opened, THINK_OPEN).replace(closed, THINK_CLOSE)
        return text

    def own(self, text: str) -> str:
        """A completion as the model writes it: `canonical` undone, so that its ids are those of an engine."""
        opened, closed = self._own_thinking
        if not self.opens_thinking and THINK_OPEN not in text:  # an answer without a thought before it
            closed = min((end for begin, end in self._thinking if begin == opened), key=len, default=closed)
        return text.replace(THINK_OPEN, opened).replace(THINK_CLOSE, closed)

    def token_ids(self, chat: Messages) -> list[int]:
        return self.ids(self.text(chat))

    def begun(self, chat: Messages, beginning: str) -> list[int]:
        """The tokens of a chat and of the beginning of its completion, as a model read and wrote them."""
        written = beginning.removeprefix(THINK_OPEN) if self.opens_thinking else beginning
        return [*self.token_ids(chat), *self.ids(self.own(written))]

    def count(self, text: str) -> int:
        return len(self.ids(text))

    def complete(self, completion: str) -> str:
        """A completion with its thought between `<think>` and `</think>`, even if the chat template had
        opened it.
        """
        completion = self.canonical(completion)
        return THINK_OPEN + completion if self.opens_thinking else completion

    def neutralise(self, text: str) -> str:
        """Break every special token and slot delimiter with a space, so that a text cannot leave its slot."""
        while (parted := self._markers.sub(broken, text)) != text:
            text = parted
        return text

    def shown(self, text: str, answer: str) -> str:
        """The part of a rollout that the recipe shows."""
        if self.config.reference == "answer":
            text = answer
        elif self.config.reference == "solution":
            text = visible(text)
        return self.neutralise(text.strip()) or "(no answer)"

    def ids(self, text: str) -> list[int]:
        """The tokens of a text on its own."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def cut(self, text: str, ids: list[int], cap: int) -> str:
        """A reference with those tokens, or its end if there are more than the cap."""
        return (self.after_cut(ids[-cap:]) if len(ids) > cap else "") or text

    def after_cut(self, ids: list[int]) -> str:
        """The text of a reference that begins with these tokens, as it is shown where the rest was cut."""
        return self.neutralise(f"... {str(self.tokenizer.decode(ids)).lstrip()}")

    def synthesizer_chat(self, problem: str, shown: Sequence[str], template: str = "") -> Chat:
        """The chat over references as they are to be shown."""
        config = self.config
        slots = [config.reference_template.format(number=i, text=text) for i, text in enumerate(shown, 1)]
        joined = config.reference_separator.join(slots)
        template = template or config.synthesizer_template
        return self._chat(template.format(problem=self.neutralise(problem), references=joined))

    def _chat(self, content: str) -> Chat:
        if self.config.system and self.config.system_in == "user":
            content = f"{self.config.system}\n\n{content}"
            return Chat(
                [{"role": "user", "content": content}], self.config.chat_template_kwargs, self.config.date
            )
        system = [{"role": "system", "content": self.config.system}] if self.config.system else []
        return Chat(
            [*system, {"role": "user", "content": content}],
            self.config.chat_template_kwargs,
            self.config.date,
        )


def dated(chat_template: str, day: str) -> str:
    """The chat template with that day in place of today's, so that a prompt is the same tomorrow."""

    def fixed(call: re.Match[str]) -> str:
        return repr(date.fromisoformat(day).strftime(call[2]))

    return re.sub(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""", fixed, chat_template)
