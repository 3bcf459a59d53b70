"""The only place that renders a prompt: explorer and synthesizer, reference text, neutralising, token
budgets.

Every stage comes through `Prompter`, so training and inference cannot differ. A trained checkpoint carries
the `PromptConfig` it was trained with (`prompt.yaml`), and is refused with another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from a2r_train.config import check_keys, load_yaml
from a2r_train.errors import InputError
from a2r_train.records import Reference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Messages = list[dict[str, str]]


class Chat(Messages):
    """Messages, and the arguments of the chat template that they are rendered with."""

    def __init__(
        self, messages: Iterable[dict[str, str]], template_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(messages)
        self.template_kwargs = dict(template_kwargs or {})


THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
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
CONSISTENCY = """\
Below are a problem and several solutions of it. Find out which answer most of them come to, even if they \
write it differently.

Problem:
{problem}

{references}

Name one reference whose answer is the most common one: put its number, and nothing else, in \\boxed{{}}."""
SELECT = """\
Below are a problem and several solutions of it. Check each solution step by step, then compare them: which \
one is most likely
to be right?

Problem:
{problem}

{references}

Name the best reference: put its number, and nothing else, in \\boxed{{}}."""
REFINE = """\
Below are a problem and your own earlier solution of it. Say what is wrong or doubtful in it, step by step, \
then solve the
problem again with what you found.

Problem:
{problem}

{references}

Write the improved solution in full, and put the final answer in \\boxed{{}}."""
CERTAIN = "I have checked this solution twice and by another method. It is certainly right.\n\n{text}"
REFERENCE = "Reference {number}:\n{text}\nEnd of reference {number}."


@dataclass(frozen=True)
class PromptConfig:
    """How prompts are rendered; lengths in tokens of the model that reads the prompt.

    reference: `answer` shows only the extracted answer, `solution` the text after `</think>`, `full`
    everything. A reference longer than max_reference_tokens keeps its end, where the answer stands. If the
    prompt is still longer than max_prompt_tokens, all references are cut to one smaller cap, never below
    min_reference_tokens. chat_template_kwargs go to the model's chat template, such as
    `enable_thinking: false`. answer_pattern says where the answer stands, such as `Answer: (.*)` or
    `<answer>(.*?)</answer>`; the last match counts. Without it a box, `####` or "the answer is" is looked
    for.
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

    def __hash__(self) -> int:
        return hash(self.dump())

    def __post_init__(self) -> None:
        kinds = {"int": (int, "at least 1"), "dict[str, Any]": (dict, "an object")}
        for key in fields(self):
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
                    f"prompt: {name} cannot be filled ({error}); write a brace of the text twice: {{{{ }}}}"
                ) from None
        try:
            if self.answer_pattern and re.compile(self.answer_pattern).groups != 1:
                raise InputError(
                    f"prompt: answer_pattern {self.answer_pattern!r}; expected one group, as in Answer: (.*)"
                )
        except re.error as error:
            raise InputError(
                f"prompt: answer_pattern {self.answer_pattern!r} is no pattern ({error})"
            ) from None
        if self.reference not in ("answer", "solution", "full"):
            raise InputError(f"prompt: reference is {self.reference!r}; expected answer, solution or full")

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
        """What a verifier reads of a text: the text, or the answer that the pattern finds in it, boxed."""
        if not self.answer_pattern:
            return text
        matches = re.findall(
            self.answer_pattern, visible(text), re.DOTALL if "<" in self.answer_pattern else 0
        )
        return rf"\boxed{{{matches[-1].strip()}}}" if matches else ""

    def dump(self) -> str:
        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)


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
        self._markers = _marker_pattern(tokenizer, self.config)
        generation_prompt = self.text(self._chat("x"))
        self.opens_thinking = generation_prompt.rstrip().endswith(THINK_OPEN)

    def explorer(self, problem: str) -> Chat:
        return self._chat(self.config.explorer_template.format(problem=self.neutralise(problem)))

    def synthesizer(self, problem: str, references: Sequence[Reference], template: str = "") -> Rendered:
        """The synthesizer's chat over references in the given order.

        `template` takes the place of the configured one where a baseline asks something else of the
        references; where it is longer, the prompt may be so much longer.

        Raises InputError if the prompt cannot be made to fit max_prompt_tokens.
        """
        shown = [self._shown(reference.text, reference.answer) for reference in references]
        lengths = [self.count(text) for text in shown]
        cap = self.config.max_reference_tokens
        longer = self.count(template) - self.count(self.config.synthesizer_template) if template else 0
        most = self.config.max_prompt_tokens + max(0, longer)
        while True:
            chat = self._synthesizer_chat(problem, [self._cut(text, cap) for text in shown], template)
            length = len(self.token_ids(chat))
            over = length - most
            if over <= 0:
                return Rendered(chat, length, sum(n > cap for n in lengths))
            longest = min(cap, max(lengths, default=0))
            if longest <= self.config.min_reference_tokens:
                raise InputError(
                    f"prompt of {length} tokens over the budget of {most} with references cut to "
                    f"{self.config.min_reference_tokens} tokens: raise "
                    f"max_prompt_tokens or lower k ({problem[:40]!r})"
                )
            still_long = sum(n >= longest for n in lengths)
            cap = max(self.config.min_reference_tokens, longest - max(1, -(-over // still_long)))

    def text(self, chat: Messages) -> str:
        """The chat with the generation prompt, as the model reads it."""
        rendered: Any = self.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=False, **getattr(chat, "template_kwargs", {})
        )
        return str(rendered)

    def token_ids(self, chat: Messages) -> list[int]:
        ids: Any = self.tokenizer(self.text(chat), add_special_tokens=False)["input_ids"]
        return list(ids)

    def count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def complete(self, completion: str) -> str:
        """A completion with the `<think>` that the chat template had opened for it."""
        return THINK_OPEN + completion if self.opens_thinking else completion

    def neutralise(self, text: str) -> str:
        """Break every special token and slot delimiter with a space, so that a text cannot leave its slot."""
        while (broken := self._markers.sub(lambda m: m.group()[0] + " " + m.group()[1:], text)) != text:
            text = broken
        return text

    def _shown(self, text: str, answer: str) -> str:
        """The part of a rollout that the recipe shows."""
        if self.config.reference == "answer":
            text = answer
        elif self.config.reference == "solution":
            text = visible(text)
        return self.neutralise(text.strip()) or "(no answer)"

    def _cut(self, text: str, cap: int) -> str:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return (
            text
            if len(ids) <= cap
            else self.neutralise("... " + str(self.tokenizer.decode(ids[-cap:])).lstrip())
        )

    def _synthesizer_chat(self, problem: str, shown: Sequence[str], template: str) -> Chat:
        config = self.config
        slots = [config.reference_template.format(number=i, text=text) for i, text in enumerate(shown, 1)]
        joined = config.reference_separator.join(slots)
        template = template or config.synthesizer_template
        return self._chat(template.format(problem=self.neutralise(problem), references=joined))

    def _chat(self, content: str) -> Chat:
        system = [{"role": "system", "content": self.config.system}] if self.config.system else []
        return Chat([*system, {"role": "user", "content": content}], self.config.chat_template_kwargs)


def _marker_pattern(tokenizer: PreTrainedTokenizerBase, config: PromptConfig) -> re.Pattern[str]:
    """What must not appear in data: special and added tokens, the template's own delimiters, the words that
    close a slot.
    """
    added = {str(token) for token in tokenizer.get_added_vocab()} | set(tokenizer.all_special_tokens)
    added = {token for token in added if len(token.strip()) > 1}
    markers = {re.escape(token) for token in added | _delimiters(tokenizer, added)}
    markers |= {re.escape(marker) for marker in (THINK_OPEN, THINK_CLOSE)}
    head, _, tail = config.reference_template.partition("{text}")
    for part in (head, tail):
        if len(part.strip()) > 1:
            markers.add(re.escape(part.strip()).replace(re.escape("{number}"), r"\d+"))
    return re.compile("|".join(sorted(markers, key=len, reverse=True)))


def _delimiters(tokenizer: Any, added: set[str]) -> set[str]:
    """The words with which a chat template parts turns where it has no special token for it, such as
    `[/INST]` or `USER:`.
    """
    from jinja2 import TemplateError

    said = [f"said{i}said" for i in range(4)]
    turns = [
        {"role": role, "content": text}
        for role, text in zip(("system", "user", "assistant", "user"), said, strict=True)
    ]
    for chat in (turns, turns[1:]):  # some templates refuse a system's turn
        try:
            text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        except TemplateError:
            continue
        before, *between = re.split(
            "|".join(map(re.escape, [*said, *sorted(added, key=len, reverse=True)])), str(text)
        )
        words = {
            *before.split()[-1:],
            *" ".join(between).split(),
        }  # before the first turn may stand a default system prompt
        return {word for word in words if re.search(r"[^\W_]", word) and not word.isalnum()}
    return set()
