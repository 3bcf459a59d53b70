"""The markers in a model's chat template and tokens: of the thought in a completion, and of the turns in a
chat.

Completions are kept with `<think>` and `</think>`, whatever the model writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
# Other markers of a thought, as some chat templates have them; in a completion they become the two above.
KNOWN_THINKING = (
    ("[THINK]", "[/THINK]"),
    ("<thought>", "</thought>"),
    ("<thinking>", "</thinking>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    (
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
    ),  # where a server has cut the turn's end
)
# What opens a thought in the rollouts of others, which only a model's own tokenizer turns into `<think>`.
OTHER_THOUGHT = re.compile(
    r"\s*(\[THINK\]|<(?:thought|thinking|reasoning|seed:think|unused94)>|<\|channel\|>analysis|\u25c1think\u25b7"
    r"|<\|(?:START_THINKING|begin_of_thought)\|>)",
    re.IGNORECASE,
)
OF_THINKING = re.compile(
    r"think|thought|reason|channel|message", re.IGNORECASE
)  # special tokens that are more than layout
_BRACKETED = re.compile(r"<+[^\s<>]+>+|\[+[^\s\[\]]+\]+")
_LINE_START = r"(?:^|(?<=[\r\v\f\x1c-\x1e\x85\u2028\u2029]))[^\S\n]*"
_LABEL_WORDS = 3  # `### Response:`; a longer line is prose, and so is a longer text before its colon


def template_of(tokenizer: Any) -> str:
    """The chat template, or the default one of several."""
    found = tokenizer.chat_template
    return str(found.get("default", "") if isinstance(found, dict) else found)


def _tokens_of(tokenizer: Any) -> set[str]:
    return {str(token) for token in (*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens)}


def _are_tokens(marker: str, tokens: set[str]) -> bool:
    return all(part in tokens for part in re.findall(r"<\|[^|]*\|>", marker) or [marker])


def _has(tokenizer: Any, pair: tuple[str, str]) -> bool:
    template, tokens = template_of(tokenizer), _tokens_of(tokenizer)
    return all(marker in template or _are_tokens(marker, tokens) for marker in pair)


def thinking_markers(tokenizer: Any, named: Sequence[str]) -> list[tuple[str, str]]:
    """The markers of a thought other than `<think>`: those that are named, else those that the chat template
    or the tokens have.
    """
    if named:
        opened, closed = named
        return [(opened, closed)]
    return [pair for pair in KNOWN_THINKING if _has(tokenizer, pair)]


def own_thinking(tokenizer: Any, named: Sequence[str], prompt: str) -> tuple[str, str]:
    """The two markers that the model writes around its thought. If its template or its tokens have several,
    those that the end of its prompt opens come first, then those that are tokens.
    """
    pairs, tokens = thinking_markers(tokenizer, named), _tokens_of(tokenizer)
    usual = (THINK_OPEN, THINK_CLOSE)
    if not named and (not pairs or _has(tokenizer, usual)):
        pairs = [usual, *pairs]

    def rank(pair: tuple[str, str]) -> tuple[bool, bool]:
        is_token = all(_are_tokens(marker, tokens) for marker in pair)
        return not prompt.rstrip().endswith(pair[0]), not is_token

    return min(pairs, key=rank)


def marker_pattern(
    tokenizer: Any, thinking: Sequence[tuple[str, str]], reference_template: str
) -> re.Pattern[str]:
    """A pattern of what must not appear in data: special and added tokens, the template's own delimiters, the
    words that close a slot.
    """
    added = {token for token in _tokens_of(tokenizer) if len(token.strip()) > 1}
    markers = {re.escape(token) for token in added} | _delimiters(tokenizer, added)
    markers |= {re.escape(marker) for pair in ((THINK_OPEN, THINK_CLOSE), *thinking) for marker in pair}
    head, _, tail = reference_template.partition("{text}")
    markers |= {_slot_marker(part) for part in (head, tail) if len(part.strip().replace("{number}", "0")) > 1}
    return re.compile("|".join(sorted(markers, key=len, reverse=True)), re.MULTILINE)


def _slot_marker(part: str) -> str:
    """The pattern of what opens or closes a slot. Without a letter, such as `{number}. `, it is a marker only
    at the start of a line and before the same space, because `3.5` is a number.
    """
    pattern = re.escape(part.strip()).replace(re.escape("{number}"), r"\d+")
    if "{number}" not in part or re.search(r"[^\W\d_]", part.replace("{number}", "")):
        return pattern
    return _LINE_START + pattern + (r"(?!\S)" if part[-1].isspace() else "")


def broken(marker: re.Match[str]) -> str:
    """A marker with a space at the first place that parts it; unchanged if a space parts it nowhere."""
    text = marker.group()
    for at in (i for i in range(1, len(text)) if not text[i - 1].isspace()):
        parted = f"{text[:at]} {text[at:]}"
        if not any(one.start() <= at < one.end() for one in marker.re.finditer(parted)):
            return parted
    return text


def _delimiters(tokenizer: Any, added: set[str]) -> set[str]:
    """Patterns of what separates turns if the chat template has no special token for it.

    They are taken from the lines directly next to a message: what is in brackets, such as `[/INST]`, and a
    label at the start of a line, such as `### Response:` or `USER:`. Words of a preamble and labels inside a
    line are prose, and are left alone.
    """
    gaps = _gaps(tokenizer)
    tokens = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))) or r"(?!)")
    parted = all(tokens.search(gap) for gap, is_said in gaps if is_said)
    found = set()
    for gap, is_said in gaps:
        for line in _beside(tokens.split(gap)):
            found |= {re.escape(marker) for marker in _BRACKETED.findall(line)}
            if is_said or not parted:  # else the line is the end of a preamble
                found |= _label(_BRACKETED.sub(" ", line))
    return found


def _gaps(tokenizer: Any) -> list[tuple[str, bool]]:
    """What a chat template puts before, between and after messages, and whether it separates a user's turn
    from an assistant's.
    """
    from jinja2 import TemplateError

    roles = ("system", "user", "assistant", "user")
    turns = [{"role": role, "content": f"said{i}said"} for i, role in enumerate(roles)]
    for chat in (turns, turns[1:], turns[1:2]):  # some templates refuse a system's turn, or a second one
        try:
            text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        except TemplateError:
            continue
        head, *rest = re.split(r"said(\d)said", str(text))
        return [(head, False), *((gap, at != "0") for at, gap in zip(rest[::2], rest[1::2], strict=True))]
    return []


def _beside(pieces: Sequence[str]) -> Iterator[str]:
    """The first line and the last line of a gap, without what a special token separates from the messages."""
    for piece, at in ((pieces[0], 0), (pieces[-1], -1)):
        if lines := [line for line in piece.splitlines() if line.strip()]:
            yield lines[at]


def _label(line: str) -> set[str]:
    """The pattern of a label that begins a line; none if the line is prose, or a bare word."""
    words = line.split()
    ends = [at for at, word in enumerate(words[:_LABEL_WORDS], 1) if word.endswith(":")]
    if not ends and len(words) > _LABEL_WORDS:
        return set()
    words = words[: ends[0]] if ends else words
    label = "".join(words)
    if label.isalnum() or not re.search(r"[^\W_]", label):
        return set()
    return {_LINE_START + r"[^\S\n]*".join(map(re.escape, words))}
