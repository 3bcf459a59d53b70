"""Finds the answer in a text. Everything here is linear in the length of the text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

from a2r_train.prompts import visible
from a2r_train.verify.decimals import REPEATS
from a2r_train.verify.options import chosen, option_named
from a2r_train.verify.traits import traits_of
from a2r_train.verify.units import NUMBER_WORDS

MAX_ANSWER_CHARS = 2000  # longer ones are never an answer, and would only cost parsing time
MAX_PROGRAM_CHARS = 50_000  # also of an answer between tags


def _any(words: str) -> str:
    """A pattern for one of these words; `_` is a space."""
    return f"(?:{'|'.join(words.split())})".replace("_", " ")


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
    r"\b(?:wrong|incorrect|false|invalid|reject|mistake|extraneous|spurious|discard|exclud|impossible|fails\b)"
    r"|\b(?:unless|if|except|cannot be|can't be)\b"
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
    r"(?:\b(?:if|whether|unless|suppose|supposing|assume|assuming|imagine|imagining|pretend"
    r"|let[’']?s say|let us say|might guess|false)"
    r"|n[o'’]t (?:true|sure|certain|clear|correct|convinced))(?: that)?\s*$|(?:如果|假设|假如)$",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[.;:!?\n]|\b(?:so(?! far)|but|hence|thus|therefore|and|yet)\b[\s,]", re.IGNORECASE)
_NEGATION = _any(
    r"\w+n[’']?t not never no_longer hardly scarcely barely cannot nothing nobody no_one no-one none "
    "neither nor few unable_to fails?_to failed_to refuses?_to without no_means far_from hard_to "
    "difficult_to hesitate_to reluctant_to"
)
_SAYING = (
    _any(
        "think thought believ say said claim conclud assum suppos accept agree expect guess infer deduc "
        "know knew see seen show prov mean impl[yi] follow assert state feel felt suggest tell told argu "
        "answer decid establish verif check demonstrat confirm support guarante indicat convinc trust "
        "insist maintain hold held report announc writ wrote find found justif declar pick choos chose"
    )
    + r"\w*"
)
_CLAIM = _any(
    "claim statement idea assumption hypothes[ie]s view guess belief notion assertion conclusion "
    "suggestion thought conjecture possibility intuition impression argument supposition premise "
    "opinion theory case"
)
_OBJECTION = (
    _any(
        r"doubt den[yi] disput disprov refut contradict reject rul\w*_out exclud question disagre dismiss "
        "discard abandon eliminat undermin violat invalidat inconsistent_with incompatible_with "
        "conflicts?_with contrary_to against debunk falsif challeng oppos"
    )
    + r"\w*"
)
_WRONG = _any(
    "impossible wrong incorrect false mistaken untrue unlikely improbable doubtful unclear uncertain "
    "absurd erroneous fallacious misleading tempting tempted naive naïve premature foolish illogical "
    "nonsense questionable debatable inaccurate unproven unfounded "
    r"(?:mistake|error|fallacy|misconception|trap|myth|lie|pitfall)(?=_(?:is|was|to|that|of)\b)"
)
_OTHERS = _any(
    "students? pupils? people persons? some many most others? someone somebody anyone anybody "
    "beginners? learners? they (?:you|one)_(?:might|may|could|would) initially at_first first "
    "originally previously used_to wrongly mistakenly falsely incorrectly erroneously prematurely"
)
_TRUE = _any(
    "true sure certain clear correct convinced right possible likely proof proven proved shown evident "
    "obvious plausible so the_case"
)
_NOT_SAID = re.compile(
    rf"\b(?:{_NEGATION} (?:\w+ ){{0,6}}?{_SAYING}"
    r"(?: (?:to |by |with |for )?(?:me|us|you|him|her|them|it|here))?"
    rf"|{_NEGATION} (?:\w+ ){{0,2}}?(?:be|{_TRUE})(?: {_TRUE})?"
    r"|no (?:\w+ )?(?:way|chance|possibility|reason|proof|evidence|guarantee|indication|sense)"
    r"(?: (?:to \w+|in which|for))?"
    rf"|{_WRONG}(?: (?:is|was|would|be|to|of|them|us|you|one|someone|for|it|\w+ly)){{0,4}}(?: {_SAYING})?"
    rf"|{_OTHERS} (?:(?:might|may|could|would|will|sometimes|also|even|often|be tempted to|\w+ly) ){{0,3}}"
    rf"{_SAYING}"
    rf"|{_OBJECTION}(?:(?: [\w’']+){{0,3}}? {_CLAIM})?"
    r"|(?:assumption|hypothesis|supposition|possibility|premise)|as (?:though|if)|too \w+ to \w+)"
    r"(?:,? (?:that|how|why))?$"
    r"|\bpas que$|\bnicht,? (?:dass|das)$|\bno (?:creo|pienso|digo|es (?:cierto|verdad|posible)) que$"
    r"|(?:不认为|不相信|不觉得|不能说|不可能|并非|并不是|不是说|否认|怀疑|假定|以为)$",
    re.IGNORECASE,
)
_DOUBLY = re.compile(  # `no doubt`, `I cannot deny`, `not hard to see`
    rf"\b(?:{_NEGATION}|no|beyond|little|any|un\w*) (?:\w+ ){{0,3}}?"
    rf"(?:(?:{_OBJECTION}|{_WRONG})(?: (?:to|of) \w+)?|(?:hard|difficult) to \w+)(?:,? (?:that|how|why))?$",
    re.IGNORECASE,
)
_FALSE = r"(?:right|correct|true|possible|the case|so|valid|the answer)\b"
_TAKEN_BACK = re.compile(  # `This is wrong.` behind it
    r"[.!?,;]?[\s*_\"')\]$]*(?:(?:but|however|and|yet|clearly|obviously|of course|no),? )?"
    r"(?:(?:this|that|which|it|such an answer|they|the claim|this (?:claim|answer|conclusion))(?:[’']s)?"
    r"(?: (?:is|was|are|would be|must be|seems|clearly|obviously|simply|also|of course|just|a)){0,4} "
    rf"(?:wrong|incorrect|false|untrue|impossible|mistaken?|error|not {_FALSE}|invalid|absurd|nonsense)\b"
    rf"|(?:this|that|it|which) (?:cannot be|can[’']?t be|isn[’']?t|wasn[’']?t) {_FALSE}"
    r"|(?:wrong|incorrect|false|not true|nope)[!.])",
    re.IGNORECASE,
)
# A choice that goes on behind its dot: `B. Or C.`, `A. 25 B. 10`.
_NO_END = re.compile(
    r"[.)]\W{0,4}\b(?i:or|and|also|but|maybe|perhaps|possibly|no|wait|hmm|actually|alternatively|sorry)\b"
    r"[^\n]{0,30}?\b[A-J]\b(?=\W{0,8}(?:$|[.,;!?\n]))"
    r"|[.)][*_]{0,4}[ \t]{1,4}(?!\([A-J]\))"
    r"(?:[^\sA-Z.](?:[^\n.]|\.\d){0,60}?|[A-Z][\w-]{0,30}(?: [\w-]{1,30})?)"
    r"(?<!and)(?<!with)(?<!to)(?<!than)(?<!of)[\s,;]{1,4}\(?[A-J][.):][ \t]{1,4}\S"
)
_NEXT_OPTION = re.compile(r"[^\n]{0,80}\n[ \t]{0,8}\(?([B-J])[.)][ \t]{1,8}(?!is\b|was\b|would\b|does\b)\S")
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
_GAP = r"[ \u00a0\u2007\u2009\u202f'’]|\\,|,|\{,\}"  # between groups of three digits
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])[-−–‑﹣－])?"
    rf"(?:[0-9]{{1,3}}(?P<gap>{_GAP})[0-9]{{3}}(?:(?P=gap)[0-9]{{3}})*(?![0-9])(?:\.[0-9]+)?"
    r"|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?![0-9])(?:\.[0-9]+)?"  # as in India
    r"|[0-9]{1,3}(?:\.[0-9]{3}){2,}(?![0-9])"
    r"|[0-9]+(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
    r"(?:[eE][-−+]?[0-9]{1,4}(?!\w|\.[0-9])|\s?(?:×|\*|\\times|\\cdot)\s?10\s?"
    r"(?:\^\s?\{?[-−+]?[0-9]{1,4}\}?|[⁻⁺]?[⁰¹²³⁴-⁹]{1,4}))?"
)
_LABEL = re.compile(r"([A-Za-z](?:_(?:\w|\{\w+\}))?)\s*=\s*\$?$")
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
    """The choice A to J that an answer gives, as `options.chosen`."""
    return chosen(answer[:MAX_ANSWER_CHARS])


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


def _sentence(text: str, prose: Sequence[re.Match[str]], is_choice: bool) -> str:
    r"""What follows the last "the answer is" up to the end of its sentence; one with a `\(` that is never
    closed is skipped.
    """
    until = len(text)
    for match in reversed(prose):
        end = _SENTENCE_END.search(text, match.end(), until)
        stop = end.start() if end else until
        answer = text[match.end() : _end_of_choices(text, match.end(), stop) if is_choice else stop]
        until = match.start()
        if _is_doubted(text, match, stop) or _assessed(text, match):
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


def _end_of_choices(text: str, start: int, stop: int) -> int:
    """Where a choice ends; behind its sentence if others follow, so that none of them counts."""
    first = text[start:stop].strip("(*_ )")[:1]
    options = _NEXT_OPTION.match(text, start) if "\n" in text[start : stop + 82] else None
    if options and ord(options[1]) == ord(first or "Z") + 1:
        return options.end()
    if not _NO_END.match(text, stop):
        return stop
    line = text.find("\n", stop)
    return line if line >= 0 else len(text)


def _is_doubted(text: str, match: re.Match[str], after: int) -> bool:
    """Whether "the answer is" is only supposed, denied, said by others, or taken back right behind it."""
    start = match.start()
    if _DOUBTED.search(text, max(0, start - 40), start) or _TAKEN_BACK.match(text, after):
        return True
    if match.group().startswith("\n"):
        return False
    before = text[max(0, start - 120) : start]
    clause = " ".join(before[max((m.end() for m in _CLAUSE.finditer(before)), default=0) :].split())
    return _NOT_SAID.search(clause) is not None and not _DOUBLY.search(clause)


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
        is_choice = verifier == "multiple_choice"
        answer = _sentence(text, prose, is_choice)
        return answer if is_choice else _without_aside(answer)
    cut = r"\boxed{" in text  # the answer itself was cut: a number in it may be only a part
    last = ""
    for match in _NUMBER.finditer(text) if verifier == "math_last_number" and not cut else ():
        last = match.group()
    return last
