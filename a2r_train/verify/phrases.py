r"""Words around mathematics, and words instead of it: `twice 5`, `one and a half`, `Total: 5`, `Option C`.

`plain` rewrites a normal form of spelling.py if the whole of it has one of these forms. Anything else is left
to the rules for quantities and words.
"""

from __future__ import annotations

import re
from fractions import Fraction

from a2r_train.verify.units import MULTIPLIERS, NUMBER_WORDS, REJECTED, vocabulary

_NUMBER = r"\d+(?:\.\d+)?"
_TERM = (
    rf"(?:{_NUMBER}|\\frac ?(?:\{{\d+\}}\{{\d+\}}|\d\d)|(?:{_NUMBER})?\\sqrt ?(?:\{{\d+\}}|\d)|\\pi ?|[a-z])"
)
_STARTS = r"(?=[-$\d(.\[]|\\[a-z{])"  # what a number or formula starts with
_LABEL = re.compile(rf'(^|[,;] ?)((?:"[A-Za-z]+" ?){{1,3}}) ?: ?{_STARTS}')
_BEFORE_SIGN = re.compile(rf'((?:"[A-Za-z]+" ?){{1,3}})(?:[:=]|"(?:is|are|was|were)")+ ?{_STARTS}')
_NAMED = re.compile(rf'((?:[A-Za-z]|(?:"[A-Za-z]+" ?){{1,4}})) ?"is" ?{_STARTS}')
DENIED = vocabulary(
    "not wrong incorrect false never no nothing none except without isn't doesn't can't "
    "unless cannot neither nor if mistake mistaken untrue unlikely"
)
# Also said of the things of a problem: `Cards removed: 5` is an answer, `Removed: 5` is not.
_SET_ASIDE = vocabulary(
    "excluded discarded eliminated omitted ignored removed thrown crossed struck ruled error failed"
)
_NO_THING = vocabulary(
    "out away off the a root roots solution solutions value values answer answers case cases"
)
DENIED |= REJECTED - _SET_ASIDE
_DENYING = (DENIED | _SET_ASIDE | {"errors", "mistakes"}) - vocabulary(
    "if without except unless nothing none never no not"
)
_HEDGE = re.compile(
    r'"(?:exactly|precisely|about|approximately|approx|roughly|around|positive|only|just|both|either)"'
    rf" ?{_STARTS}",
    re.I,
)
_ARTICLE = re.compile(r'(?:a|an|"an"|"the") (?=\d)')
_TIMES = re.compile(rf'"(twice|double|thrice|triple|half)" ?(?:"of" )?(?={_TERM}(?: "|$))', re.I)
_FACTORS = {"twice": "2", "double": "2", "thrice": "3", "triple": "3", "half": r"\frac{1}{2}"}
_OPERATION = re.compile(rf'(-?{_TERM}) ?"(plus|minus|times|over|divided)" ?("by" ?)?({_TERM})')
_OPERATORS = {"plus": "+", "minus": "-", "times": r"\cdot ", "over": "/", "divided": "/"}
_SHARE = re.compile(r'(\d+) ?(?:"?out"? "of"|"in") ?(\d+)')
_PERCENT_OF = re.compile(rf'({_NUMBER}) ?(?:%|"percent") ?"of" \$?({_NUMBER})', re.I)
_FRACTION = r"\\frac ?(?:\{\d+\}\{\d+\}|\d ?\d)|\d+/\d+|0?\.\d+"
_SHARE_OF_NUMBER = re.compile(rf'^({_FRACTION}) ?"of" ?(\d+)$')
_SHARE_OF = re.compile(
    rf'^({_FRACTION}|{_NUMBER} ?(?:%|"percent")) ?"of" (?:(?:a|"an"|"the"|"all") )*'
    r'((?:"[A-Za-z-]+" ?){1,3})$'
)
_HALF_OF_DAY = re.compile(
    r"^(\d{1,2}(?::\d\d)?) ?(?:o'\"clock\" )?\"in\" \"the\" \"(morning|afternoon|evening)\"$", re.I
)
# A remark in brackets that says why or how exactly, and one that is the unit.
_REMARK = re.compile(
    r'(.*[\w)}%]) ?\( ?"(?:(?:since|because|rounded)"[^()]*'
    r'|(?:by|as|using|approx(?:imately)?|exact(?:ly)?|double|repeated)"[^()\d]*'
    r'|(?:(?:with|of)" ?")?multiplicity" ?(?:\d|"(?:one|two|three|four)"))\)$',
    re.I,
)
_SECOND = re.compile(r'"(?:or|not|no|wrong|incorrect|and)"', re.I)
_ELSEWHERE = vocabulary("other others negative second smaller larger")  # what a reason rejects instead
_THE_ANSWER = vocabulary("it this that itself")
_UNIT_IN_BRACKETS = re.compile(r'(.*[\d}]) ?\( ?(?:"in" ?)?((?:"[A-Za-z]+"(?:\^\{?\d\}?)? ?)+)\)$')
_MONEY = re.compile(r'\$ ?(\d+) ?"and" ?(\d\d?) ?"cents?"')
_BOUNDS = {"at least": r"[{},\infty)", "at most": r"(-\infty,{}]", "more than": r"({},\infty)"}
_BOUNDS |= {"greater than": r"({},\infty)", "less than": r"(-\infty,{})"}
_BOUND = re.compile(rf'"(at|more|greater|less)" "(least|most|than)" ?(-?{_NUMBER})', re.I)
# A yes with its reason, which has no number: `yes, 5` is two answers.
_VERDICT = re.compile(
    r'"?(yes|no|true|false)"? ?(?:[,;:.(—] ?|- )?(?:"(?:because|since)"(.+)'
    r'|(?<=[,;:.(—\- ])"(?:as|by|it|they|this|that|the|there|we|he|she)"([^\d\\$]+))',
    re.I,
)
_SHIFTS = vocabulary(
    "yes no true false or if unless except but maybe perhaps possibly probably sometimes only although "
    "though however sure wait both neither usually mostly otherwise when "
    "wrong incorrect depends unclear"
)
_EXCEPT = re.compile(
    r'"all" (?:"reals"|"real" (?:"numbers"|[a-z])) "except" ?(?:[a-z] ?= ?)?([-\d.,\\a-z"{} ]+)'
)
_MINUS = re.compile(r"(?:- ?|negative |minus )(?=[a-z])")
_CHOICE = re.compile(r'(?:"(?:option|choice)" ?)?(?:\(([A-J])\)|([A-J])\)?)', re.I)
_TWICE_WRITTEN = re.compile(
    r'((?:"[A-Za-z]+" ?-?){1,6}) ?\( ?(\d{1,15}) ?\)|(\d{1,15}) ?\( ?((?:"[A-Za-z]+" ?-?){1,6})\)'
)
_BASE = re.compile(r'([0-9A-Z]+) ?\(?"(?:in )?base" ?"?(\w+)"?\)?')
_SAME = {
    "dne": '"does" "not" "exist"',
    "the limit does not exist": '"does" "not" "exist"',
    "infinity": r"\infty ",
    "positive infinity": r"\infty ",
    "negative infinity": r"-\infty ",
    "minus infinity": r"-\infty ",
    "- infinity": r"-\infty ",
    "-infinity": r"-\infty ",
    "none": r"\emptyset",
    "there are no solutions": r"\emptyset",
    "there is no solution": r"\emptyset",
}
_PARTS = {word: part for word, part in MULTIPLIERS.items() if part < 1} | {"quarter": Fraction(1, 4)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}


def plain(text: str) -> str:
    """The same answer as mathematics, if it is words of the kinds above."""
    words = " ".join(re.sub(r'(?<=[a-z])"?-"?(?=[a-z])|"', " ", text).split()).casefold()
    if words in _SAME:
        return _SAME[words]
    if (match := _CHOICE.fullmatch(text)) and text[-1] in ")ABCDEFGHIJ":
        return (match[1] or match[2]).upper() if len(text) > 1 and text[0] != "(" else text
    if (match := _VERDICT.fullmatch(text)) and not set(words.split()[1:]) & _SHIFTS:
        return f'"{match[1]}"'
    if '"' not in text:
        return text
    if match := _EXCEPT.fullmatch(text):
        points = match[1].replace('"and"', ",")
        return rf"\R \setminus \{{{points}\}}"
    text = re.sub(r'(?<=\d) ?"per" "cent"', "%", text)
    text = re.sub(r"^(\d{1,2}) o'\"clock\"$", r"\1", text)
    text = _HALF_OF_DAY.sub(lambda m: f'{m[1]} "{"am" if m[2].lower() == "morning" else "pm"}"', text)
    text = _SHARE_OF.sub(r"\1 \2", _SHARE_OF_NUMBER.sub(r"\1\\cdot \2", text))
    if (spoken := _written_twice(text) or _in_digits(words)) is not None:
        return spoken
    text = _ARTICLE.sub("", _HEDGE.sub("", _without_remark(text), count=1), count=1)
    if _sets_aside(text):
        return text.replace("=", ":")  # which is no name
    if DENIED & set(words.replace(":", " ").split()):  # what is denied is no answer
        return _operated(text)
    text = _LABEL.sub(lambda m: f"{m[1]}{m[2].strip()}=", text)
    if match := _NAMED.match(text):
        text = f"{match[1].strip()}={text[match.end() :]}"
    return _operated(text)


def _without_remark(text: str) -> str:
    """`6 (by symmetry)` as 6, and `18 (in cm)` as 18 cm; a remark that names a second answer stays."""
    if match := _REMARK.fullmatch(text):
        doubtful = _SECOND.search(text, match.end(1)) or _takes_back(text[match.end(1) :], match[1])
        return text if doubtful else match[1]
    match = _UNIT_IN_BRACKETS.fullmatch(text)
    return f"{match[1]} {match[2].strip()}" if match and not _takes_back(match[2], "") else text


def _sets_aside(text: str) -> bool:
    """Whether a name says that its number is none of the answers: `Discarded: 5`, `excluded root = 5`."""
    match = _BEFORE_SIGN.match(text)
    words = set(match[1].replace('"', " ").casefold().split()) if match else set()
    return bool(words & _SET_ASIDE) and words <= _SET_ASIDE | _NO_THING


def _takes_back(remark: str, answer: str) -> bool:
    """Whether a remark denies its answer: `(since it fails)`, but not `(since -3 fails)` behind 5, and not
    `(by contradiction)`.
    """
    words = {word.casefold() for word in re.findall(r"[A-Za-z']+", remark)}
    if not words & _DENYING and not any(word.endswith("n't") for word in words):
        return False
    numbers = set(re.findall(_NUMBER, remark))
    own = numbers & set(re.findall(_NUMBER, answer)) or words & _THE_ANSWER
    return bool(own) or not (numbers or words & _ELSEWHERE)


def _written_twice(text: str) -> str | None:
    """`five (5)` and `5 (five)` as 5; None unless both are the same number."""
    match = _TWICE_WRITTEN.fullmatch(text)
    if not match:
        return None
    words, number = (match[1], match[2]) if match[1] else (match[4], match[3])
    spoken = _in_digits(" ".join(re.sub(r'["-]', " ", words).split()).casefold())
    return number if spoken == number else None


def _in_digits(words: str) -> str | None:
    r"""`minus one and a half` as `-\frac{3}{2}`."""
    sign = _MINUS.match(words)
    rest = words[sign.end() :] if sign else words
    found = _spoken(rest.split())
    if found is None or (rest[0].isdigit() and " and " not in rest):
        return None
    size = rf"\frac{{{found.numerator}}}{{{found.denominator}}}" if found.denominator > 1 else str(found)
    return "-" + size if sign else size


def _operated(text: str) -> str:
    """The same text with operations in words as signs."""
    text = (
        re.sub(r'"(\w+)"', lambda m: str(NUMBER_WORDS.get(m[1].lower(), m[0])), text)
        if _is_sum(text)
        else text
    )
    if match := _OPERATION.fullmatch(text):
        return match[1] + _OPERATORS[match[2].lower()] + match[4]
    if match := _TIMES.match(text):
        return rf"{_FACTORS[match[1].lower()]}\cdot {text[match.end() :]}"
    if match := _SHARE.fullmatch(text):
        return rf"\frac{{{match[1]}}}{{{match[2]}}}" if int(match[1]) <= int(match[2]) else text
    if match := _PERCENT_OF.fullmatch(text):
        return rf"\frac{{{match[1]}}}{{100}}\cdot {match[2]}"
    if match := _MONEY.fullmatch(text):
        return f'{match[1]} "dollars" "and" {match[2]} "cents"'
    if match := _BOUND.fullmatch(text):
        bound = _BOUNDS.get(f"{match[1]} {match[2]}".lower())
        return bound.format(match[3]) if bound else text
    if match := _BASE.fullmatch(text):
        return f"{match[1]}_{{{match[2]}}}"
    return text


def _is_sum(text: str) -> bool:
    return re.search(r'"(?:plus|minus|times|over|divided|twice|half|out)"', text) is not None


def _spoken(words: list[str]) -> Fraction | None:
    """`one hundred and five`, `two and three quarters`, `a half`, `5 and a half`; None for anything else."""
    if "and" in words:
        at = len(words) - 1 - words[::-1].index("and")
        part, whole = _part(words[at + 1 :]), _spoken(words[:at])
        if part is not None and whole is not None and whole.denominator == 1:
            return whole + part
    found = _part(words)
    return found if found is not None else _whole(words)


def _part(words: list[str]) -> Fraction | None:
    """`half`, `a half`, `three quarters`."""
    *count, noun = words or [""]
    size = _PARTS.get(noun) or _PARTS.get(noun.removesuffix("s"))
    if size is None or len(count) > 1 or (not count and noun != "half"):
        return None
    many = 1 if not count or count[0] in ("a", "an") else NUMBER_WORDS.get(count[0])
    return size * many if many and (many > 1) == (noun.endswith("s")) and noun != "halve" else None


def _whole(words: list[str]) -> Fraction | None:
    """A whole number in words, or in digits if it is the only word."""
    if len(words) == 1 and words[0].isdigit():
        return Fraction(int(words[0])) if len(words[0]) < 20 else None
    if words in (["a", "dozen"], ["one", "dozen"], ["dozen"]):
        return Fraction(12)
    if words[:1] == ["a"] and words[1:2] and words[1] in _SCALES:
        words = ["one", *words[1:]]
    total, group, last = 0, 0, 10**12
    for i, word in enumerate(words):
        if (
            word == "and"
            and 0 < i < len(words) - 1
            and words[i - 1] in _SCALES
            and words[i + 1] in NUMBER_WORDS
        ):
            continue
        if word == "hundred" and 0 < group < 100:
            group, last = group * 100, 100
        elif (scale := _SCALES.get(word)) and scale > 100 and group:
            total, group, last = total + group * scale, 0, 10**12
        elif (value := NUMBER_WORDS.get(word)) is not None and _fits(value, last):
            group, last = group + value, (10 if value >= 20 else 1)
        else:
            return None
    return Fraction(total + group) if words else None


def _fits(value: int, last: int) -> bool:
    """Whether a word may follow one of this size: `twenty one`, `hundred twenty`, but not `one two`."""
    return value < last if last >= 100 else 0 < value < 10 and last == 10
