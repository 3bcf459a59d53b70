r"""Notations that stand for another one: `\mathrm{d}x` for `dx`, `{}^5C_2` for a binomial, dots for a period.

Each rewrite leaves a text alone that it does not understand, and its own result.
"""

from __future__ import annotations

import re

_UPRIGHT_FONT = r"\\(?:text(?:bf|it|rm|normal|sf|tt|up|md)?|mathrm|[mhf]box|emph|operatorname\*?)(?![A-Za-z])"
_UNBRACED = re.compile(rf"{_UPRIGHT_FONT}\s*(?:([A-Za-z])(?![A-Za-z])|(?=[A-Za-z\d]|\\[A-Za-z]))")
# A speed or acceleration; metres need a space before the fraction, as every unit of one letter does.
_SPEED = re.compile(
    r"(?<=[\d}])(?:\s|\\,)*\\[dt]?frac\s*\{\s*(km|cm|mm|mi|ft|(?<=[\s,]\\frac\{)m)\s*\}"
    r"\s*\{\s*(s|h|hr|min|sec)\s*(\^\s*2|\^\s*\{\s*2\s*\})?\s*\}$"
)
_ROW_GAP = re.compile(r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in|baselineskip|\\baselineskip)\s*\]")
_COMMAND_OF_TWO = re.compile(r"(\\[dtc]?(?:frac|binom)) +([A-Za-z]) ?([A-Za-z])(?![A-Za-z])")
_UPRIGHT_D = r"\\(?:mathrm|text|operatorname|rm)\s*\{\s*d\s*\}\s*"
_DIFFERENTIAL = re.compile(
    rf"{_UPRIGHT_D}(?:[A-Za-z](?![A-Za-z])|\\(?:theta|phi|rho|mu|sigma|omega|tau)(?![a-z]))"
)
_UPRIGHT = re.compile(_UPRIGHT_D)
_DOT = r"\\dot ?\{?(\d)\}?"
_DOTTED = re.compile(rf"(?<=\.)(\d*){_DOT}(\d*){_DOT}")
_SIZE = r"(?:\{(\d+|[a-z])\}|(\d+|[a-z](?![a-z])))"
_KIND = r"(?:\\mathrm ?)?\{?([CP])\}? ?"
_SELECTED = re.compile(rf"(?<![\w)}}]) ?(?:\{{ ?\}})?[\^_] ?{_SIZE} ?{_KIND}_ ?{_SIZE}")
_SELECTED_BELOW = re.compile(r"(?<![A-Za-z\\])\{?C\}? ?_ ?(?:\{(\d+)\}|(\d)) ?\^ ?(?:\{(\d+)\}|(\d))")
_BLACKBOARD_NAME = re.compile(r"\\mathbb\s*(?:\{\s*([EP])\s*\}|([EP]))\s*(?=[(\[]|\\left)")
_EXPECTED = re.compile(r"^(E)\s*(?:\\left\s*)?\[([^\[\]]*?)(?:\\right\s*)?\](?=\s*=)")  # E[X] = 3
_CHOSEN = re.compile(r"(?<![A-Za-z\\}_])C ?\( ?(\d+|\d*[nmN](?:[-+]\d+)?) ?, ?(\d+|[jkmr](?:[-+]\d+)?) ?\)")
_OTHER_POINT = re.compile(r"(?<![A-Za-z\\])[ABD-Z]'? ?\(|\) ?=|\(\d+, ?\d+\)$")
_APOSTROPHES = re.compile(r"(?<![\d.,'])\d{1,3}(?:'\d{3})+(?![\d'])")
_UNDERSCORES = re.compile(r"(?<![\w.])\d{1,3}(?:\\?_\d{3})+(?![\w{])")
_DIGITS_OVERLINED = re.compile(r"\\overline\s*\{(\d{2,20})\}")  # of a whole number, as for its letters
_ORDER = re.compile(r"\\mathcal\s*(?:O|\{\s*O\s*\})(?=\s*\()")
_FEET = re.compile(r"(\d+)' ?(\d+(?:\.\d+)?)''")
_POINTS = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3}){2,})(?:,(\d+))?(?![\d.,])")
_UNSEEN = re.compile(r"\\[hv]?phantom\s*(?:\{[^{}]*\}|\w)")
_DONE = re.compile(
    r"(?<=\S)\s*(?:\\(?:checkmark|blacksquare|qed|qedsymbol|nonumber|notag)(?![A-Za-z])|\\tag\*?\s*\{[^{}]*\}"
    r"|\\label\s*\{[^{}]*\}|[✓✔✅∎■])\s*$"
)  # a mark behind an answer
# `$x=2$ or $x=3$`
_EACH_IN_DOLLARS = re.compile(r"\$[^$]+\$(?:(?:\s*[,;]\s*|\s+)(?:(?:and|or)\s+)?\$[^$]+\$)+\.?")
_STRUCK = re.compile(r"~~[^~]+~~")  # in Markdown; inside a text, ~ is a space of TeX
_GOES_ON = re.compile(r"([,;])\s*\.\.\.$")


def rewritten(text: str) -> str:
    """The text in the notation that the other rules know."""
    if text.count("$") > 3 and _EACH_IN_DOLLARS.fullmatch(text):
        text = text.replace("$", " ")
    if text[:1] == "~" and _STRUCK.fullmatch(text):
        return ""
    if "\\" in text or not text.isascii():
        text = _DONE.sub("", text)
    if "\\" in text:
        if over := _DIGITS_OVERLINED.fullmatch(text):
            return over[1]
        text = _ROW_GAP.sub(r"\\\\ ", _UNBRACED.sub(lambda m: rf"\mathrm{{{m[1]}}}" if m[1] else " ", text))
        text = _SPEED.sub(lambda m: f" {m[1]}/{m[2]}" + ("^2" if m[3] else ""), text)
        text = _ORDER.sub("O", _UNSEEN.sub(" ", text))
        text = _COMMAND_OF_TWO.sub(r"\1{\2}{\3}", text)
        if _DIFFERENTIAL.search(text):
            text = _UPRIGHT.sub("d", text)
        text = _DOTTED.sub(r"\1\\overline{\2\3\4}", text)
    if "E" in text or "P" in text:
        text = _BLACKBOARD_NAME.sub(lambda m: m[1] or m[2], text)
        text = _EXPECTED.sub(r"\1(\2)", text.strip())
    if "C" in text and "," in text and not _OTHER_POINT.search(text):
        text = _CHOSEN.sub(r"\\binom{\1}{\2}", text)
    if "_" in text:
        text = _UNDERSCORES.sub(lambda m: re.sub(r"\\?_", "", m.group()), text)
        text = _SELECTED_BELOW.sub(_binomial, _SELECTED.sub(_selection, text))
    if "'" in text:
        text = f"{feet[1]} feet {feet[2]} inches" if (feet := _FEET.fullmatch(text)) else text
        text = _APOSTROPHES.sub(lambda m: m.group().replace("'", ""), text)
    text = _GOES_ON.sub(r"\1 \\ldots", text)
    return _POINTS.sub(lambda m: m[1].replace(".", "") + (f".{m[2]}" if m[2] else ""), text)


def _selection(match: re.Match[str]) -> str:
    """`{}^5C_2` is the number of selections, `{}^5P_2` that of their orders."""
    n, kind, k = match[1] or match[2], match[3], match[4] or match[5]
    return rf"\binom{{{n}}}{{{k}}}" if kind == "C" else rf"\frac{{{n}!}}{{({n}-{k})!}}"


def _binomial(match: re.Match[str]) -> str:
    """`C_5^2`, the same where the larger number is below; otherwise C is a name with an index."""
    n, k = match[1] or match[2], match[3] or match[4]
    return rf"\binom{{{n}}}{{{k}}}" if int(n) >= int(k) else match.group()
