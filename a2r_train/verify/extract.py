"""Finds the answer in a text. Everything here is linear in the length of the text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

from a2r_train.prompts import visible
from a2r_train.verify.options import option_named
from a2r_train.verify.spelling import REPEATS
from a2r_train.verify.traits import traits_of
from a2r_train.verify.units import NUMBER_WORDS

MAX_ANSWER_CHARS = 2000  # longer ones are never an answer, and would only cost parsing time
MAX_PROGRAM_CHARS = 50_000  # also of an answer between tags

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})([^\n`]*)$", re.MULTILINE)
_PYTHON = re.compile(r"\{?[ \t]*\.?(?:py|$)", re.IGNORECASE)  # the language of a block: python, {.py} or none
_DEFINED = re.compile(r"^(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)|^(\w+)[ \t]*=[ \t]*lambda\b", re.MULTILINE)
_CALLED = re.compile(r"\b(\w+)[ \t]*\(")
_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
# Without braces a box has one number or letter, of which nothing may follow that it is a part of.
_BARE = r"\\boxed\s*(?P<bare>-?\d+(?:[.,]\d+)*|(?<=\s)[A-Za-z])(?!\s*(?:[\w^!({\[/*+=<>%-]|\\[^)\]])|[.,]\d)"
_BRACES = re.compile(rf"\\\\(?!boxed)|\\boxed\s*\{{|{_BARE}|\\[{{}}]|[{{}}]")
_PROSE = re.compile(
    r"(?:\b(?:the|our|my)\s+(?:(?:final|correct|right|best|exact|numerical)\s+)?(?:answer|(?<=correct\s)(?:option|choice))"
    r"(?:\s+to\s+(?:the|this)\s+(?:question|problem))?\s*(?:\*\*|__)?\s*(?:is|=|:|equals|must\s+be|should\s+be|would\s+be)"
    r"|(?:^|\n)[\s*_>#-]{0,8}(?:(?:final|correct)\s+)?(?:answer(?:\s+is)?\s*(?:\*\*|__)?\s*[:=]|ans\.?\s*:)"
    r"|(?:^|\n)[ \t]*(?:#{2,6}[ \t]*(?:\*\*|__)?|\*\*|__)(?:final\s+)?answer"  # a heading
    r"[ \t]*(?:\*\*|__)?[ \t]*(?=\n)"
    r"|答案\s*(?:是|为|[:：])|\b(?:la\s+respuesta\s+es|die\s+antwort\s+ist|la\s+réponse\s+est)\b"
    r"|\bfinal\s+answer\s*(?:\*\*|__)?\s*(?::|is\b))\s*:?\s*(?:\*\*|__)?\s*(?:(?:therefore|thus|then|simply|indeed),?\s)?\s*",
    re.IGNORECASE,
)
# The dot of an abbreviation ends no sentence; that of `sq.` and `a.m.` may.
_SENTENCE_END = re.compile(
    r"\n|。|(?<!\b(?:Rs|St|Mr|Ms|Dr|vs))(?<!\bMrs)(?<!\b[Aa]pprox)"
    r"(?:(?<!\b(?:sq|cu))|(?!\.\s+[a-z\d]))(?:(?<!\b[ap]\.m)|(?!\.\s+(?:and|or|to|until)\b))"
    r"\.(?=[*_)\"']*(?:\s|$))"
)
_ANNOUNCES = (
    "answer",
    "ans:",
    "ans.",
    "ans :",
    "option",
    "choice",
    "antwort",
    "respuesta",
    "réponse",
    "答案",
)
_HEADED = re.compile(r"answer[ \t]*(?:\*\*|__)?\s*$", re.IGNORECASE)
_DISPLAY = re.compile(r"(?:\$\$|\\\[)[ \t]*\n(.{1,2000}?)(?:\$\$|\\\])", re.DOTALL)  # on lines of its own
_FENCED = re.compile(r"```(?:text|txt|plaintext|latex|tex|math)?[ \t]*\n([^\n`]{1,2000})\n[ \t]*```")
# Remarks that follow an answer. One with a number or a formula may be a second answer, and is kept.
_REASON = re.compile(r",?\s+(?:because|since)\b|，\s*因为")
_DENIED = re.compile(
    r"\b(?:wrong|incorrect|false|invalid|reject|mistake)|\b(?:unless|if|except|cannot be|can't be)\b"
    r"|n[o']t (?:be )?(?:right|correct|true|valid|possible|the)\b",
    re.IGNORECASE,
)
_OWN = re.compile(r"(?:our|my)\s+(?!final)", re.IGNORECASE)
_ASSESSMENT = re.compile(
    r"(?:in|un)?(?:accurate|correct|consistent|complete|valid|reasonable|plausible|sensible|verified|confirmed"
    r"|right|wrong|likely|close)\b(?!\s*[:=]|\s+(?:angle|triangle|graph))",
    re.IGNORECASE,
)
# What precedes "the answer is" where it is not said to be so.
_DOUBTED = re.compile(
    r"(?:\b(?:if|whether|suppose|supposing|assume|assuming|imagine|doubt|might guess|false)"
    r"|n[o']t (?:true|sure|certain|clear|correct|convinced))(?: that)?\s*$|(?:如果|假设|假如)$",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"(?:,?\s+(?:so|as|which|where|i\.e)\b|,\s+(?!and\b|or\b)(?=[a-z]{2,}\b))(.*)$", re.DOTALL
)
_SECOND = re.compile(rf"[\d\\$]|\b(?:or|{'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE)
_GOES_ON = re.compile(r"[-*+]\s|\d+[.)]\s|```|[A-Za-z]{2,}\s+\S")  # a list or a sentence on the next line
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]*)")
_ENUMERATED = re.compile(r"\(?\d+[.):]\s+\D|\d+\.?\s+[A-Z]")
_BEGINS_ANSWER = re.compile(r"[-+−–$£€¥₹\\({\[|.√π∞\d]|[A-Za-z](?:\([a-z]\))?\s*=")
_HEADING = re.compile(
    r"(?:step|solution|conclusion|explanation|verif|check|analy|approach|method|case|part|problem|question|given|note|"
    r"example|summary|calculat|comput|final|answer|result|proof|reason|understand|find|determin|solv|let|first|second|"
    r"third|next|now|why|how|what|key|setup|setting|introduction|background|overview|alternative|recap)\w*",
    re.IGNORECASE,
)
_NEXT_QUESTION = re.compile(
    r"\n[\s*_>#-]{0,8}(?:question|problem|exercise|human|user|instruction|input|task|q)\s?(?:no\.?\s?)?\d{0,4}\s?(?:\*\*|__)?\s?[:.]",
    re.IGNORECASE,
)
_NEXT_TURN = re.compile(r"<(?:\|im_(?:start|end)\||\|endoftext\||\|eot_id\||/s)>|\[INST\]")
_OPENS, _CLOSES = re.compile(r"(?<!\\)\\[(\[]"), re.compile(r"(?<!\\)\\[)\]]")
_NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?")
_LETTER = re.compile(
    r"\W*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\W*)?(?:(?:the\s+)?(?:(?:correct|right|best)\s+)?"
    r"(?:answer|option|choice|letter)\s*(?:is\b)?\s*\}?\W*)?(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\W*"
    r"([A-J])(?:[).:,}*\]]|\s*$|(?-i:(?<=[A-J]))\s+(?:because|since|as|is|which|so)\b|\s+[-–—]\s)",
    re.IGNORECASE,
)
_LABEL = re.compile(r"([A-Za-z](?:_(?:\w|\{\w+\}))?)\s*=\s*\$?$")
_LETTERS_ALONE, _WORD = re.compile(r"(?:\W|\b(?:[A-J]|or|and)\b)*"), re.compile(r"\w+")
_WRAPPINGS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))


def extract(text: str, verifier: str = "math", problem: str = "") -> str:
    r"""The answer in the text after the last `</think>`, or "" if there is none.

    The last complete, non-empty `\boxed{...}`, else the first line after `####` that is no heading, else the
    last complete sentence after "the answer is" or "Answer:". `math_last_number` then falls back to the last
    number, unless a box was opened. If another question follows a complete answer, the text ends there. For
    `multiple_choice` the answer is the letter in upper case, also if the text gives one of the options in
    `problem`. Verifiers whose answers are in a fenced block or between tags get the last one, and nothing
    else; `python_tests` leaves out blocks that only use or test a program (`program_in`).
    """
    return candidates(text, verifier, problem)[-1]


def candidates(text: str, verifier: str, problem: str = "") -> list[str]:
    """All distinct boxed answers in order of their last appearance, or the one answer given otherwise; never
    empty.

    "" stands for no answer, for one that is too long, and for `multiple_choice` for one that is neither a
    letter nor an option.
    """
    place = traits_of(verifier).answer_in
    if place != "box":
        return [_placed(visible(text), _finder(verifier, place))]
    text = until_next_question(_with_boxes(visible(text)))
    found = [clean(answer) for answer in _boxes(text) if answer.strip()] or [clean(_unboxed(text, verifier))]
    found = [answer if len(answer) <= MAX_ANSWER_CHARS else "" for answer in found]
    if verifier == "multiple_choice":
        found = [option_named(answer, problem, clean) or letter(answer) for answer in found]
    return list(dict.fromkeys(reversed(found)))[::-1]


def _finder(verifier: str, place: str) -> Callable[[str], str]:
    if place == "tags":
        return last_tagged
    return program_in if verifier == "python_tests" else last_block


def _placed(text: str, found_in: Callable[[str], str]) -> str:
    """What a function finds in a text; or the one box made by a prompt's `answer_pattern`."""
    boxed = text.startswith(r"\boxed{") and text.endswith("}")
    answer = text[len(r"\boxed{") : -1] if boxed else found_in(text)
    return answer if answer.strip() and len(answer) <= MAX_PROGRAM_CHARS else ""


def written(answer: str, verifier: str) -> str:
    """A text in which `extract` finds this answer. Raises InputError as `traits_of`."""
    place = traits_of(verifier).answer_in
    if place == "box":
        return rf"\boxed{{{answer}}}"
    return f"```python\n{answer}\n```" if place == "code" else f"<answer>{answer}</answer>"


def last_tagged(text: str) -> str:
    """The last text between <answer> tags, "" if there is none."""
    found: list[str] = _TAGGED.findall(text)
    return found[-1].strip() if found else ""


def last_block(text: str) -> str:
    """The content of the last complete fenced block of a text, "" if there is none. Blocks after another
    question do not count.

    A fence indented by four or more than the opening one belongs to the block, as in a docstring, unless no
    other fence ends a block.
    """
    return _blocks(text)[-1][1]


def program_in(text: str) -> str:
    """The last fenced block that is a program, else the last block: an example of its use, its output or its
    tests may follow the program.

    A program is Python or names no language, defines a function or a class, and calls none that only an
    earlier block defines.
    """
    program, defined = "", set[str]()
    for language, content in _blocks(text):
        names = {of_def or of_lambda for of_def, of_lambda in _DEFINED.findall(content)}
        if not names or not _PYTHON.match(language):
            continue
        if (defined - names).isdisjoint(_CALLED.findall(content)):
            program = content
        defined |= names
    return program or last_block(text)


def _blocks(text: str) -> list[tuple[str, str]]:
    """The language and the content of each complete fenced block; never empty."""
    found = _blocks_within(text, 4)
    return found if found[-1][1] else _blocks_within(text, MAX_PROGRAM_CHARS)


def _blocks_within(text: str, indent: int) -> list[tuple[str, str]]:
    """The same, if a closing fence must be indented less than `indent` more than the opening one."""
    found, opened, end = [("", "")], None, 0
    for match in _FENCE.finditer(text):
        if opened is None:
            between = text[end : match.start()]
            if end and (_NEXT_QUESTION.search(between) or _NEXT_TURN.search(between)):
                break
            opened = match
        elif _closes(match, opened, indent):
            # A block in a list is indented like its fence.
            content = textwrap.dedent(text[opened.end() + 1 : match.start()].rstrip("\n"))
            found.append((opened[3].strip(), content))
            opened, end = None, match.end()
    return found


def _closes(fence: re.Match[str], opened: re.Match[str], indent: int) -> bool:
    same = fence[2].startswith(opened[2]) and not fence[3].strip()
    return same and len(fence[1].expandtabs(4)) < len(opened[1].expandtabs(4)) + indent


def labelled_boxes(text: str) -> list[str]:
    r"""The different boxed answers in order, with the name in front of a box: `x=\boxed{1}` is `x=1`."""
    text = until_next_question(_with_boxes(visible(text)))
    found = []
    for start, end in _box_spans(text):
        before = text[max(0, text.rfind(r"\boxed", 0, start) - 20) : text.rfind(r"\boxed", 0, start)]
        name = _LABEL.search(before)
        found.append((f"{name[1]}=" if name else "") + clean(text[start:end]))
    return [answer for answer in dict.fromkeys(reversed(found)) if answer][::-1]


def _with_boxes(text: str) -> str:
    r"""A text with `\fbox` as its box if it has no other."""
    return text if r"\boxed" in text or r"\fbox" not in text else text.replace(r"\fbox", r"\boxed")


def until_next_question(text: str) -> str:
    """The text before a line that opens another question, if a complete answer precedes that line."""
    questions = [*islice(_NEXT_QUESTION.finditer(text), 50), *islice(_NEXT_TURN.finditer(text), 50)]
    if not questions:
        return text
    questions.sort(key=re.Match.start)
    ends = [end for _, end in _box_spans(text)[:1]]
    ends += [match.end() for match in islice(_HASHES.finditer(text), 20) if _hashed(text, match)][:1]
    ends += [match.end() for match in islice(_prose(text), 1)]
    first = min(ends, default=len(text))
    return next((text[: match.start()] for match in questions if match.start() >= first), text)


@lru_cache(maxsize=20_000)
def clean(answer: str) -> str:
    """The answer without outer math or bold delimiters, closing punctuation and repeated white space;
    idempotent.
    """
    text, before = " ".join(answer.split()), None
    while text != before:
        before = text
        text = text.strip()
        bare = text.rstrip(".,;:") if not REPEATS.search(text) else text
        text = text[: len(bare) + 1] if bare.endswith("\\") else bare  # `\,` is a space
        for left, right in _WRAPPINGS:
            inner = text[len(left) : len(text) - len(right)]
            if text.startswith(left) and text.endswith(right) and inner and left not in inner:
                text = inner
    return text


def letter(answer: str) -> str:
    r"""The choice A to J in `B`, `(B)`, `B.`, `\text{B}` or `B) text`; "" for anything else, and for several
    choices as in `A, B`.
    """
    match = _LETTER.match(answer[:MAX_ANSWER_CHARS])
    if not match:
        return ""
    others = set(
        (_LETTERS_ALONE.fullmatch(answer, match.end(1)) and _WORD.findall(answer, match.end(1))) or []
    )
    return match.group(1).upper() if others <= {match.group(1)} else ""


def _boxes(text: str) -> list[str]:
    return [text[start:end] for start, end in _box_spans(text)]


def _box_spans(text: str) -> list[tuple[int, int]]:
    r"""The spans of the contents of all complete `\boxed{...}`, outermost ones only, in order."""
    found: list[tuple[int, int]] = []
    open_at: list[int | None] = []
    for match in _BRACES.finditer(text, max(0, text.find(r"\boxed"))):
        token = match.group()
        if match["bare"]:
            found.append(match.span("bare"))
        elif token.endswith("{") and token != r"\{":
            open_at.append(match.end() if len(token) > 1 else None)
        elif token == "}" and open_at and (start := open_at.pop()) is not None:
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, match.start()))
    return found


def _hashed(text: str, match: re.Match[str]) -> str:
    """The answer in a line after `####`, or "" for a heading; several words count only in the last line."""
    line = match[1].strip().strip("*_").strip()
    if prose := _PROSE.match(line):
        return line[prose.end() :].strip()
    if _BEGINS_ANSWER.match(line) and not _ENUMERATED.match(line):
        return line
    words = line.split()
    if not words or _HEADING.match(words[0]) or _ENUMERATED.match(line):
        return ""
    is_last = match.end() >= len(text.rstrip())
    return line if is_last or (len(words) == 1 and len(line) < 30) else ""


def _sentence(text: str, prose: Sequence[re.Match[str]]) -> str:
    r"""What follows the last "the answer is" up to the end of its sentence; one with a `\(` that is never
    closed is skipped.
    """
    until = len(text)
    for match in reversed(prose):
        end = _SENTENCE_END.search(text, match.end(), until)
        answer = text[match.end() : end.start() if end else until]
        until = match.start()
        if _DOUBTED.search(text, max(0, match.start() - 40), match.start()) or _assessed(text, match):
            continue
        display = _DISPLAY.match(text, match.end()) or _FENCED.match(text, match.end())
        said = display[1] if display else answer
        if r"\boxed{" in said and (display or _HEADED.search(match.group())):
            return ""  # it was cut: complete boxes come before all else
        if display:
            return said.strip()
        if "\n" in match.group().lstrip() and _GOES_ON.match(text, match.end()):
            continue
        if len(_OPENS.findall(answer)) <= len(_CLOSES.findall(answer)):
            return answer.strip().strip("*_")
    return ""


def _assessed(text: str, match: re.Match[str]) -> bool:
    """Whether a writer only says of the own answer how good it is: `our answer is accurate`."""
    return bool(_OWN.match(match.group())) and bool(_ASSESSMENT.match(text, match.end()))


def _prose(text: str) -> Iterator[re.Match[str]]:
    lower = text.lower()  # cheaper than the pattern
    return _PROSE.finditer(text) if any(word in lower for word in _ANNOUNCES) else iter(())


def _without_aside(answer: str) -> str:
    answer = _REASON.split(answer, maxsplit=1)[0]
    aside = _ASIDE.search(answer)
    if aside and not _SECOND.search(aside[1]) and not _DENIED.search(aside[1]):
        return answer[: aside.start()]
    return answer


def _unboxed(text: str, verifier: str) -> str:
    for match in _HASHES.finditer(text) if "####" in text else ():
        if answer := _hashed(text, match):
            return answer
    if prose := list(_prose(text)):
        answer = _sentence(text, prose)
        return answer if verifier == "multiple_choice" else _without_aside(answer)
    cut = r"\boxed{" in text  # the answer itself was cut: a number in it may be only a part
    numbers = _NUMBER.findall(text) if verifier == "math_last_number" and not cut else []
    return numbers[-1] if numbers else ""
