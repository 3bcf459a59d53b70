"""The options in a multiple-choice problem, and the one that an answer gives as a letter or as text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache

from a2r_train.verify.equality import Equality, Unasked, Undecided
from a2r_train.verify.exact import TooLarge
from a2r_train.verify.expression import Unreadable
from a2r_train.verify.kinds import False_, Words
from a2r_train.verify.reading import read
from a2r_train.verify.spelling import spell

LETTERS = "ABCDEFGHIJ"
MOST_CHARACTERS = 300  # of an answer or option that is read as a number
_LINE = re.compile(r"[ \t]*\(?([A-J])[.):][ \t]+(\S.*)")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox) ?\{([^{}]*)\}")
_ESCAPE = re.compile(r"\\(?=[%$&#_])")
_EXACT = Equality(Unasked())

_FULL_WIDTH = re.compile("[\uff01-\uff5e]+")
# Fonts, boxes, braces, math marks, quotes and stars say nothing about the choice.
_DRESS = re.compile(
    r"\\(?:text[a-z]*|math[a-z]*|[mhf]box|boxed|emph|bold|boldsymbol|bm|bf|it|rm|underline|left|right)(?![A-Za-z])"
    r"|\\[()\[\]]|[{}$*_`\"'“”‘’„«»]"
)
_SPACES = re.compile(r"\\(?:quad|qquad|[,;:!> ])|~|\s+")
_LETTER = r"(?-i:[A-J])"
_CHOICE = re.compile(
    r"\W*(?:(?:the\s+)?(?:(?:correct|right|best|final)\s+)?(?:answer|option|choice|letter)\b(?:\W*is\b)?\W*)*"
    rf"(?P<letter>[A-J])(?:(?P<mark>[).:,\]])|\s*$|(?<={_LETTER})\s+(?=\([^()]*\)\W*$)|\s+[-–—]\s"
    rf"|(?<={_LETTER})\s+(?P<verb>is\b)"
    rf"|(?<={_LETTER})\s+(?=(?:because|since|as|which|so|rather\s+than|instead\s+of)\b))",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\b(?:because|since|so(?!\s+(?:is|are)\b)|which|(?<!well\s)as(?!\s+well\b))\b", re.IGNORECASE
)
_CLAUSE_END = re.compile(rf"[,;.!?](?!\d)|{_REASON.pattern}", re.IGNORECASE)
# What is said of a choice with `is`: that it is right, or which value it has.
_RIGHT = re.compile(
    r"\s*(?:(?:clearly|indeed|thus|therefore|definitely|certainly|obviously|hence|then|also)\s+)*"
    r"(?:(?:the|our|my|a|only|most|single|best|final|one|an|true)\s+){0,4}"
    r"(?:correct|right|true|best|answer|option|choice|one|valid|accurate|appropriate|what|equal\s+to|[\d$\\(-])",
    re.IGNORECASE,
)
_WRONG = (
    r"wrong|incorrect|false|invalid|untrue|impossible|rejected|excluded|eliminated|discarded|mistake"
    r"|(?:ruled|crossed|thrown)\s+out"
)
_DENIAL = re.compile(
    rf"\b(?:{_WRONG}|not|no|nor|never|neither|none|cannot|hardly|scarcely|barely"
    r"|(?:is|was|are|ca|does|do|wo|did)n.?t|mistaken|error|unlikely|inaccurate|rather|instead|except|unless|if"
    r"|almost|nearly|far\s+from|too|fails?|distractor|trap|tempting|questionable|doubtful|dubious|maybe|perhaps"
    r"|half|partly|partially)\b",
    re.IGNORECASE,
)
_VERB = re.compile(
    r"(?:(?:is|was|isn.?t|wasn.?t|would\s+be|must\s+be|seems|looks|fails|doesn.?t|does\s+not)\b"
    r"|(?:cannot|can.?t|can\s+not|could\s+not)\s+be\s+(?:right|correct|true|the|it|so)\b)",
    re.IGNORECASE,
)
_DENYING = re.compile(
    rf"(?:(?:is|clearly|obviously|definitely|this|that|which|it|was|a)\s+)*(?:no|not?(?:\s.*)?|{_WRONG})",
    re.IGNORECASE,
)
_MAY_BE = r"(?:is|(?:must|should|may|might|could|would)\s+be)"
_CALLED = r"(?:options?|choices?|answers?|letters?)"
# A choice has a label, or is said to be right.
_LABELLED = re.compile(
    rf"(?:(?<=[\s,;/&|])|^)(?:[(\[](?P<bracketed>{_LETTER})[)\]]|(?P<labelled>{_LETTER})[.):](?=\s*\S))"
    rf"|\b{_CALLED}\s+\(?(?P<called>{_LETTER})\b"
    rf"|(?<!\w)(?P<possible>{_LETTER})\)?\s+(?:{_MAY_BE}|works)\s+"
    r"(?:(?:also|equally)(?!\s+(?:too|wrong|not|incorrect|false|bad)\b)|too(?!\s+\w)"
    r"|possible|correct|right|as\s+well|true)\b"
    rf"|\b(?:it|answer|this|that)(?:\s+{_MAY_BE}|.?s)\s+\(?(?P<said>{_LETTER})(?=\W*(?:$|[.,;!?]))",
    re.IGNORECASE,
)
# Or it stands behind a word or sign that joins it. Names and variables do not: `, C = 3`, `, I think`.
_JOINED = re.compile(
    r"(?:\b(?:or|and|also|maybe|perhaps|possibly|probably|wait|actually|no|not|hmm|as\s+well\s+as|plus|but|versus"
    r"|vs\.?|then|alternatively|otherwise|even|is|be|sorry|rather|to|yes)\b|(?P<sign>[,;/&+|?!>→]))[\s.,;:(\[]{0,6}"
    r"(?-i:(?!I\s+(?!(?:is|or|and|also|too)\b)[a-z])(?P<letter>[A-J]))(?!\w)"
    r"(?![^\w\s.,;:)\]!?/&|]|\s*[=<>+*/^\\]"
    r"|\s+(?!(?:is|are|was|were|may|might|could|can|too|also|as|or|and|but|both|either|instead|maybe|perhaps|if)\b)"
    r"(?-i:[a-z]))",
    re.IGNORECASE,
)
_LONE = re.compile(r"(?<![\w\\])[A-J](?!\w)")
_HEDGE = re.compile(
    r"\b(?:or|maybe|perhaps|possibly|wait|actually|alternatively)\b[\s,.:]{0,6}"
    rf"(?:(?:maybe|perhaps|possibly|even)\s+)?(?:{_CALLED}\s+)?\(?({_LETTER})\)?(?=\W*(?:$|[.,;!?]\s))",
    re.IGNORECASE,
)
_REFUSED_OTHER = re.compile(
    r"(?:,\s*|\s+)(?:(?:and|but|while)\s+)?"
    rf"(?:(?:not|rather\s+than|instead\s+of)\s+(?:{_CALLED}\s+)?\(?{_LETTER}\)?"
    rf"|(?:{_CALLED}\s+)?\(?{_LETTER}\)?\s+is\s+(?:not|{_WRONG}))(?=\W|$)",
    re.IGNORECASE,
)
_LETTERS_ALONE, _WORD = re.compile(r"(?:\W|\b(?:[A-J]|or|and)\b)*"), re.compile(r"\w+")


def chosen(answer: str) -> str:
    r"""The choice A to J in `B`, `(B)`, `B.`, `\text{B}`, `B) text` or `B is correct`; "" for anything else,
    for a choice that is denied, and for several as in `A, B` or `A. 25 B. 10`.

    The text of an option may have single capital letters of its own, as `vitamin C` or `I and II`.
    """
    plain = _undressed(answer)
    match = _CHOICE.match(plain)
    if not match:
        return ""
    found, rest = match["letter"].upper(), plain[match.end("letter") :]
    if _LETTERS_ALONE.fullmatch(rest):
        others = set(_WORD.findall(rest))
        return found if others <= {match["letter"]} else ""
    kept = _REFUSED_OTHER.sub(" ", rest)
    if match["verb"]:
        denied = not _is_right(plain[match.end("verb") :])
    else:
        denied = _is_denied(rest if match["mark"] == ":" or not match["mark"] else kept, match["mark"] or "")
    return "" if denied or _others(kept, match["mark"] or "") - {found} else found


def _undressed(answer: str) -> str:
    plain = _FULL_WIDTH.sub(lambda m: unicodedata.normalize("NFKC", m.group()), answer)
    return " ".join(_DRESS.sub("", _SPACES.sub(" ", plain)).split())


def _is_right(predicate: str) -> bool:
    """Whether `is` goes on as praise or a value: `is correct`, but not `is wrong` or `is, I think, wrong`."""
    clause = _CLAUSE_END.split(predicate, maxsplit=1)[0]
    return bool(_RIGHT.match(clause)) and not _DENIAL.search(clause)


def _is_denied(rest: str, mark: str) -> bool:
    """Whether all that is said of a choice is that it is none: `B: no`, `B (wrong)`, `B) is not correct`. The
    text of an option may be `No` itself, or `Cannot be determined`.
    """
    first = re.split(r"[,;.!?)](?!\d)", rest.lstrip(" .:,;)](-–—"), maxsplit=1)[0].strip()
    if _VERB.match(first):
        return _DENIAL.search(first) is not None
    return mark not in (".", ")") and _DENYING.fullmatch(first) is not None


def _others(rest: str, mark: str) -> set[str]:
    """The letters of other choices behind a choice."""
    reason = _REASON.search(rest)
    why, said = (rest[reason.start() :], rest[: reason.start()]) if reason else ("", rest)
    said = said if mark in (",", "") else said[1:]  # the label's own mark joins nothing
    found = {letter for match in _LABELLED.finditer(said) for letter in match.groups() if letter}
    found |= set(_HEDGE.findall(why))
    found |= {letter for match in _LABELLED.finditer(why) if (letter := match["possible"])}
    joined = _JOINED.search(said)
    if joined and _begins(joined, said):
        found.add(joined["letter"])
    return found


def _begins(joined: re.Match[str], said: str) -> bool:
    """Whether a joined letter is another choice. It is part of an option's text behind another letter, as in
    `vitamins A and C`, or behind a comma in brackets, as in `(2, C)`.
    """
    before = said[: joined.start()]
    within = joined["sign"] and before.count("(") > before.count(")")
    return not within and not _LONE.search(before)


@lru_cache(maxsize=20_000)
def options_in(problem: str) -> Mapping[str, str]:
    """The texts of the last lines `A. ...`, `B. ...` and so on, by letter; {} for fewer than two.

    An option continues over lines without a letter, up to a blank line.
    """
    lines = problem.splitlines()
    begins = [at for at, line in enumerate(lines) if (match := _LINE.fullmatch(line)) and match[1] == "A"]
    found: list[str] = []
    for line in lines[begins[-1] :] if begins else ():
        match = _LINE.fullmatch(line)
        if match and match[1] == LETTERS[len(found) : len(found) + 1]:
            found.append(match[2].strip())
        elif not line.strip():
            break
        else:
            found[-1] += f" {line.strip()}"
    return dict(zip(LETTERS, found, strict=False)) if len(found) > 1 else {}


def option_named(answer: str, problem: str, clean: Callable[[str], str]) -> str:
    """The letter of the only option of a problem that equals a cleaned answer, as text or else as a number.
    "" for no or several such options, and for an answer that is itself a letter.
    """
    options = options_in(problem) if answer else {}
    if not options or answer.strip("()").rstrip(".").upper() in options:
        return ""
    both = _LINE.fullmatch(answer)
    if both and _same_text(both[2], clean(options.get(both[1], ""))):
        return both[1]
    lettered = both is not None and both[1] in options  # the letter says it, whatever number stands behind it
    for same in (_same_text,) if lettered else (_same_text, _same_number):
        if equal := [letter for letter, text in options.items() if same(answer, clean(text))]:
            return equal[0] if len(equal) == 1 else ""
    return ""


def _same_text(answer: str, option: str) -> bool:
    return _bare(answer) == _bare(option)


def _bare(text: str) -> str:
    return _ESCAPE.sub("", _TEXT.sub(r"\1", text)).casefold()


def _same_number(answer: str, option: str) -> bool:
    """Whether both are the same number or the same formula, by arithmetic alone."""
    if max(len(answer), len(option)) > MOST_CHARACTERS:
        return False
    try:
        one, other = read(spell(answer)), read(spell(option))
        return not isinstance(one, Words | False_) and _EXACT.same(one, other)
    except (Undecided, TooLarge, Unreadable):
        return False
