r"""The normal form of an answer: one spelling for what Unicode, LaTeX, Markdown and plain text write in many
ways.

It is plain LaTeX with few commands, and every word is in double quotes, so that a word is never taken for a
product of letters: `12\,\mathrm{cm}^2`, `12 cm²` and `12 \text{ cm}^2` all become `12 "cm"^{2}`.
"""

from __future__ import annotations

import re
import unicodedata

from a2r_train.verify.decimals import REPEATS, numbers
from a2r_train.verify.expression import NAMED_FUNCTIONS
from a2r_train.verify.notation import rewritten
from a2r_train.verify.numerals import in_digits
from a2r_train.verify.products import ends_in_pi, is_of_time, is_unit_behind_pi
from a2r_train.verify.symbols import all_units, is_symbol, quote_units
from a2r_train.verify.units import LETTERS, NUMBER_WORDS, is_unit, vocabulary

_VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
    "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
    "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta "
    "theta iota kappa lambda mu nu "
    "xi pi rho sigma "
    "tau upsilon "
    "phi chi psi omega"
)
GREEK_ORDER = {name: place for place, name in enumerate(_GREEK_NAMES.split())}
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψω", _GREEK_NAMES.split(), strict=True))
_GREEK |= {
    "Γ": "Gamma",
    "Θ": "Theta",
    "Λ": "Lambda",
    "Π": "Pi",
    "Σ": "Sigma",
    "Φ": "Phi",
    "Ψ": "Psi",
    "Δ": "Delta",
    "Ξ": "Xi",
    "Ω": "Omega",
    "\u2126": "Omega",  # the sign of the ohm
    "\u2206": "Delta",  # the sign of an increment
    "ϕ": "phi",
    "ϵ": "epsilon",
    "ϑ": "theta",
    "ℓ": "ell",
    "∂": "partial",
    "ℏ": "hbar",
}
_CHARACTERS = {
    **dict.fromkeys("−–‐‑‒﹣－", "-"), "—": " — ",
    **dict.fromkeys("\u00a0\u2007\u2008\u2009\u200a\u202f\u3000\u2002\u2003", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f", ""),
    **{c: rf"\frac{{{a}}}{{{b}}}" for c, (a, b) in _VULGAR.items()}, **{c: rf"\{name} " for c,
    name in _GREEK.items()},
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "∗": r"\cdot ", "÷": "/", "⁄": "/",
    "∕": "/",
    "°": r"^\circ ", "º": r"^\circ ", "˚": r"^\circ ", "℃": r"^\circ C", "℉": r"^\circ F", "∞": r"\infty ",
    "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ",
    "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "∨": ' "or" ',
    "∧": ' "and" ', "∖": r"\setminus ", "ℝ": r"\R ", "ℤ": r"\Z ", "ℚ": r"\Q ", "ℕ": r"\N ", "ℂ": r"\C ",
    "′": "'", "’": "'", "‘": "'", "″": "''", "“": "", "”": "", '"': "''", "⟨": r"\langle ", "⟩": r"\rangle ",
    "∠": r"\angle ", "△": r"\triangle ", "…": r"\ldots ", "∣": "|", "∥": r"\parallel ", "⊥": r"\perp ",
    "→": r"\to ", "⇒": r"\implies ", "⟹": r"\implies ", **dict.fromkeys("⇔⟺↔", r"\iff "), "¬": r"\neg ",
    "∫": r"\int ", "∑": r"\sum ", "。": ".", "、": ", ", "￥": "¥", "￡": "£", "∶": ":",
    **dict.fromkeys("\u00c5\u212b", ' "angstrom" '), "\u212a": "K", "\u00b5": r" \mu ",  # that of units
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
}  # fmt: skip
_TRANSLATION = str.maketrans(_CHARACTERS)
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿˣ", "0123456789+-()nx", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙₓ", "0123456789+-nx", strict=True))
_RAISED_RUN, _LOWERED_RUN = re.compile(f"[{''.join(_RAISED)}]+"), re.compile(f"[{''.join(_LOWERED)}]+")
_ROOT_SIGN = re.compile(r"([√∛])\s*(\d+(?:\.\d+)?|[A-Za-z]|(?=[({])|(?=\\))")
_ACCENTED = re.compile("[\u00c0-\u00c4\u00c6-\u024f]")  # Latin letters, but not the angstrom
_FOLDED = re.compile("[\uff01-\uff5e\U0001d400-\U0001d7ff]+")

_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|sf|tt|up|md)?|mathrm|[mhf]box|emph|operatorname\*?)\s*\{((?:[^{}]|\^\{-?\d\})*)\}"
)
_FONT = re.compile(
    r"\\(?:mathbf|mathit|boldsymbol|bm|pmb|underline|boxed|fbox|mathsf|mathtt|mathnormal|bold|ensuremath)(?![A-Za-z])"
)
_MARKS = r"\\(?:mathbf|textbf|boldsymbol|bm|pmb|bold|underline|widehat|hat|vec|overrightarrow)(?![A-Za-z])\s*"
_LETTER = r"(?:\\[ij](?:math)?|[ijk])(?![A-Za-z])\s*"
_MARKED = rf"(?:{_MARKS})?(?:\{{\s*{_LETTER}\}}|{_LETTER})"
_UNIT_VECTOR = re.compile(rf"{_MARKS}(?:\{{\s*{_MARKED}\}}|{_MARKED})")
_HATTED = re.compile("(?<![A-Za-z])(?:\u00ee|\u0135|[ijk]\u0302)(?![A-Za-z])")  # one character, or two
_SWITCH = re.compile(
    r"\\(?:bf|it|rm|sf|tt|bfseries|displaystyle|textstyle|scriptstyle|limits|nolimits|left|right|middle|[bB]igg?[lrm]?"
    r"|strut|normalsize|large|Large|small|hfill|centering|null)(?![A-Za-z])\.?"
)
_VECTOR = (
    r"(?:\\nabla(?![A-Za-z])|\\(?:vec|mathbf|boldsymbol|bm|pmb|hat|bold|overrightarrow|mathcal)"
    r"\s*(?:\{[^{}]*\}|[A-Za-z]))"
)
_SET = "[A-EGMNSTX-Z]"  # letters of sets and groups rather than of lengths
_CROSS = re.compile(
    rf"(?P<left>{_VECTOR}|(?<![A-Za-z\\]){_SET})\s*\\times\s*(?=\(?(?:{_VECTOR}|{_SET}(?![\w(])))"
    rf"|(?P<closed>\))\s*\\times\s*(?=\(?{_VECTOR})"
)  # a product of vectors or sets, not of numbers
_WRAPPER = re.compile(rf"(?:{_FONT.pattern}|{_SWITCH.pattern}|\s)*\{{(?!\s*\}})(?:{_SWITCH.pattern})?")
_MAX_WRAPPERS = 8  # nested
_LEADING = re.compile(
    r"^\s*(?:(?:=|:)(?![=:])|\\(?:therefore|implies|Rightarrow|Longrightarrow|rightarrow|to)(?![A-Za-z]))\s*"
)
_FIGURE_NAMES = {
    "ray": "overrightarrow",
    "vector": "overrightarrow",
    "line": "overleftrightarrow",
    "segment": "overline",
    "angle": "angle",
    "triangle": "triangle",
}
_FIGURE = re.compile(rf'(?<![A-Za-z\\])"?({"|".join(_FIGURE_NAMES)})"? +"?([A-Z]{{1,3}})"?(?![A-Za-z])')
_COLOR = re.compile(r"\\(?:text)?color\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}")
_SPACE = re.compile(
    r"\\(?:quad|qquad|thinspace|enspace|medspace|thickspace|space|nobreakspace)(?![A-Za-z])"
    r"|(?<!\\)\\[,;:> ]|~"
)
_WIDE = re.compile(r"\\[hv]space\*?\s*\{[^{}]*\}")
_BLACKBOARD = re.compile(r"\\(?:mathbb|Bbb|mathds)\s*(?:\{\s*([RZQNC])\s*\}|([RZQNC]))")
_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "leqq": "le",
    "geq": "ge",
    "geqslant": "ge", "geqq": "ge", "neq": "ne", "times": "cdot", "ast": "cdot", "bullet": "cdot",
    "dbinom": "binom",
    "tbinom": "binom", "lvert": "|", "rvert": "|", "vert": "|", "infin": "infty", "varnothing": "emptyset",
    "degree": "circ", "lbrace": "{", "rbrace": "}", "reals": "R", "Reals": "R", "backslash": "setminus",
    "lt": "<",
    "gt": ">", "colon": ":", "dots": "ldots", "cdots": "ldots", "land": '"and"', "lor": '"or"', "vee": '"or"',
    "wedge": '"and"', "div": "/", "pounds": "£", "euro": "€", "textdollar": "$", "texteuro": "€",
    "textsterling": "£",
    "lparen": "(", "rparen": ")", "bmod": "mod", "prime": "'", "arccot": "acot", "tg": "tan", "ctg": "cot",
    "arctg": "arctan", "arcctg": "acot",
    "langle": "(", "rangle": ")", "textdegree": "circ", "smallsetminus": "setminus", "varepsilon": "epsilon",
    "varphi": "phi", "vartheta": "theta", "widehat": "hat", "widetilde": "tilde", "lbrack": "[",
    "rbrack": "]",
    "bar": "overline",
    "textasciitilde": "sim", "textendash": "-", "minus": "-", "cent": "¢", "textcent": "¢",
    "approxeq": "approx", "AA": '"angstrom"',
    "simeq": "approx", "measuredangle": "angle", "lnot": "neg",
    **dict.fromkeys(["rightarrow", "longrightarrow"], "to"),
    **dict.fromkeys(["Rightarrow", "Longrightarrow"], "implies"),
    **dict.fromkeys(["leftrightarrow", "longleftrightarrow", "Leftrightarrow", "Longleftrightarrow"], "iff"),
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)\s*")
_RAISED_WORD = r"\\(?:text(?:rm|normal|superscript)?|mathrm|mbox|rm)(?![A-Za-z])\s*"
_ORDINAL = re.compile(
    rf"(\d+)(?:(st|nd|rd|th)(?![A-Za-z])|\s*\^?\s*{_RAISED_WORD}\{{\s*(st|nd|rd|th)\s*\}}"
    rf"|\s*\^\s*\{{\s*(?:{_RAISED_WORD})?(?:(st|nd|rd|th)|\{{\s*(st|nd|rd|th)\s*\}})\s*\}})"
)
_FUNCTIONS = NAMED_FUNCTIONS | vocabulary(
    "sin cos tan cot sec csc cis log ln exp sqrt pi gcd lcm theta infty binom frac det max min"
)
_PLAIN_NAMES = {"infinity": "infty", "Infinity": "infty", "arctg": "arctan", "arcctg": "acot"}
# Short words that count as words only on their own.
_SHORT = vocabulary(
    "or and not no to by of per is in on at as an if the for so be all red odd yes am pm cu sq mod rs "
    "up us we he me my go do it ok hi ox ad oh ho ah eh uh"
)
_SHORT_ANYWHERE = {"or", "and"}
_NUMBER_BEFORE = re.compile(r"[\d.})](?:\s|~|\\[,;: ])*\Z")
_NUMBER_AND_SPACE = re.compile(r"(?<![\^_\w\\{.])[\d.,]+(?:\s*\\(?:times|cdot)\s*10\s*\^\s*\{?-?\d+\}?)?\s+$")
_RUN = re.compile(r'"[^"]*"|\\[A-Za-z]+|[A-Za-z]+')
_WORD_BESIDE = re.compile(r"(?<![\\a-z])[a-z]+\s$|^\s[a-z]")
_SIZES = {"M": "million", "B": "billion", "K": "thousand", "k": "thousand"}
_INTERVAL = re.compile(r"([\[\]])([^\[\]()]+[,;][^\[\]()]+)([\[\]])")
_INTERVALS = re.compile(rf"(?:[A-Za-z] ?(?:\\in|=) ?)?{_INTERVAL.pattern}(?: ?\\cup ?{_INTERVAL.pattern})*")
# `!=` as in programs; in `n! = 6` and `3!=6` the sign is that of a factorial.
_UNEQUAL = re.compile(r"((?<![\w}])\d+)?!=")


def spell(answer: str) -> str:
    """The normal form; idempotent from the first use on. Everything is linear except for nesting."""
    text = rewritten(_unwrapped(_characters(answer)))
    text = _layout(_ORDINAL.sub(_ordinal, text))
    text = _quoted(quote_units(_unboxed_text(text)))
    text = _figures(_commands(text))
    return numbers(_tidy(text))


def _ordinal(match: re.Match[str]) -> str:
    """`18th` is 18; `2st` stays, as it is no ordinal."""
    number = match[1]
    ending = next(group for group in match.groups()[1:] if group)
    teen = number[-2:-1] == "1"
    right = "th" if teen else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")
    return number if ending == right else match.group()


def words_of(text: str) -> str:
    """A normal form as plain words in lower case, for comparison of texts."""
    return " ".join(
        re.sub(r'[\\{}"$*]|(?<![A-Za-z0-9])[.,:;]|[.,:;](?![A-Za-z0-9])', " ", text).casefold().split()
    )


def _characters(text: str) -> str:
    text = _FOLDED.sub(lambda m: unicodedata.normalize("NFKC", m.group()), text)
    if text.isascii():
        return text.replace('"', "''")
    text = re.sub(r"(?<=\d) ?([mcdk])ℓ|(?<=\d) ℓ", lambda m: f" {m[1] or ''}L", in_digits(text))
    text = _ROOT_SIGN.sub(
        lambda m: (r"\sqrt" if m[1] == "√" else r"\sqrt[3]") + (f"{{{m[2]}}}" if m[2] else ""), text
    )
    text = _HATTED.sub(lambda m: rf"\hat{{{unicodedata.normalize('NFD', m.group())[0]}}}", text)
    text = _ACCENTED.sub(lambda m: unicodedata.normalize("NFD", m.group())[0], text)
    text = _RAISED_RUN.sub(lambda m: "^{" + "".join(map(_RAISED.get, m.group())) + "}", text)  # type: ignore[arg-type]
    text = _LOWERED_RUN.sub(lambda m: "_{" + "".join(map(_LOWERED.get, m.group())) + "}", text)  # type: ignore[arg-type]
    return text.translate(_TRANSLATION)


def _bare(text: str) -> str:
    """The text without the Markdown and TeX marks around all of it."""
    before = None
    while text != before:
        before = text
        text = _cut(text.strip()) if not text.rstrip().endswith("\\,") else text.strip()
        for mark in ("**", "__", "*", "``", "`", "''", "'", "$$", "$"):
            inner = text[len(mark) : -len(mark)]
            if (
                len(text) > 2 * len(mark)
                and text.startswith(mark)
                and text.endswith(mark)
                and mark not in inner
            ):
                text = inner
        if text.count("**") == 1:  # the other pair is outside the answer
            text = text.removesuffix("**").removeprefix("**")
        for left, right in ((r"\(", r"\)"), (r"\[", r"\]")):
            if text.startswith(left) and text.endswith(right) and left not in text[2:]:
                text = text[2:-2]
    return text


def _cut(text: str) -> str:
    """The text without the end of a sentence, but with the dots of a decimal that goes on."""
    return text if REPEATS.search(text) else text.rstrip(".,;")


def _unwrapped(text: str) -> str:
    """The text without the braces around all of it, whether of a font, a box, or nothing."""
    for _ in range(_MAX_WRAPPERS):
        before = text
        text = _LEADING.sub("", _bare(text))
        if (match := _WRAPPER.match(text)) and (inner := _inner(text, match.end())):
            text = inner
        if text == before:
            break
    return text


def _inner(text: str, start: int) -> str:
    """The content of the braces that open before `start`, if they close at the end of the text."""
    depth = 1
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}") if text[at - 1] != "\\" else 0
        if depth == 0:
            return text[start:at].strip() if at == len(text) - 1 else ""
    return ""


def _figures(text: str) -> str:
    """`ray AB` as a ray: its name is not a product of letters."""
    return (
        _FIGURE.sub(lambda m: rf"\{_FIGURE_NAMES[m[1]]} {{{m[2]}}}", text)
        if '"' in text or "ray" in text
        else text
    )


def _layout(text: str) -> str:
    """The text without what only affects the layout; spaces of all kinds become plain ones."""
    text = re.sub(r"(?:\\newline|\\par|\\\\)\s*$", "", text)
    text = re.sub(
        r"(?<![\\A-Za-z}^_{])\{\s*\}(?=\s*\S)|(?<=\d)\{\s*\}", "", text
    )  # keeps TeX from joining signs
    text = re.sub(r"\\sqrt\s+(\d{2,})(?![\d.])", r"\\sqrt{\1}", text)
    text = re.sub(r"^([^{}=<>]*)\\over(?![A-Za-z])([^{}=<>]*)$", r"\\frac{\1}{\2}", text)
    text = re.sub(r"^([^{}=<>]*)\\choose(?![A-Za-z])([^{}=<>]*)$", r"\\binom{\1}{\2}", text)
    text = re.sub(r"(?<![A-Za-z])\{([,:])\}", r"\1", text.replace(r"\!", "").replace(r"\/", ""))
    text = re.sub(r"(?<=\d)\s*\\q?quad\s*(?=[A-Za-z]\s*=)", ", ", text)
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])\.?", "", text)
    text = re.sub(
        r"(?<!\\)\$(-?[\d.,]+|[A-Za-z])(?<!\\)\$", r"\1 ", re.sub(r"\bU\.?S\.?\s*(?=\\?\$)", "", text)
    )
    text = _SPACE.sub(" ", _WIDE.sub(" ", _COLOR.sub(" ", text)))
    text = _SWITCH.sub(" ", text)
    if r"\times" in text:
        text = _CROSS.sub(lambda m: rf"{m['left'] or m['closed']}\cross ", text)
    text = _FONT.sub(" ", _unit_vectors(text))
    text = _BLACKBOARD.sub(lambda m: rf"\{m[1] or m[2]} ", text)
    text = re.sub(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}", text)
    text = re.sub(r"(?<!\\)\\\|", "|", text)  # but not in a row that begins with one
    return (
        text.replace(r"\%", "%")
        .replace(r"\$", "$")
        .replace(r"\#", "")
        .replace(r"\_", " ")
        .replace(r"\&", "&")
    )


def _unit_vectors(text: str) -> str:
    r"""Marked letters i, j and k in one spelling, if there are two: `\unit {i}` if a letter is only bold."""
    if "j" not in text and "k" not in text:  # most answers: two of the three letters include j or k
        return text
    found = _UNIT_VECTOR.findall(text)
    return _UNIT_VECTOR.sub(_unit_vector, text) if len(set(map(_letter_in, found))) > 1 else text


def _unit_vector(match: re.Match[str]) -> str:
    marks = match.group()
    name = "hat" if "hat" in marks else "vec" if "vec" in marks or "arrow" in marks else "unit"
    return rf"\{name} {{{_letter_in(marks)}}}"


def _letter_in(marked: str) -> str:
    return marked.rstrip("} \t\n").removesuffix("math")[-1]


def _unboxed_text(text: str) -> str:
    r"""`\text{...}` as quoted words and plain characters."""
    before = None
    while text != before:
        before = text
        text = _TEXT.sub(lambda m: _quote_all(m[1], _NUMBER_BEFORE.search(m.string, 0, m.start())), text)
    return text


def _quote_all(content: str, behind: object) -> str:
    """Its words in quotes; `behind` a number, letters that may be products are units too."""
    content = content.replace("$", "") if content.count("$") > 1 else content
    stripped = content.strip()
    if stripped in LETTERS:
        return f' "{stripped}"'
    if all_units(stripped, behind is not None):  # m/s, m s
        return " " + re.sub(r"(?<!\\)\b[A-Za-z]+", r'"\g<0>"', stripped)
    if stripped in _FUNCTIONS - {"min", "sec", "max"}:
        return rf"\{stripped} "
    content = _abbreviated(content)
    return " " + re.sub(r'"[^"]*"|\\[A-Za-z]+|[A-Za-z]{2,}(?:\'[a-z]+)?', _quote_match, content) + " "


def _quote_match(match: re.Match[str]) -> str:
    word = match.group()
    return word if word[0] in '"\\' else f'"{word}"'


def _abbreviated(text: str) -> str:
    text = re.sub(r"\b([AaPp])\s?\.\s?[mM]\b\.?", lambda m: f' "{m[1].lower()}m" ', text)
    return re.sub(r"\bRs\b\.?", ' "rs" ', re.sub(r"(?<=[A-Za-z]{2})\.(?=\s|$)", " ", text))


def _quoted(text: str) -> str:
    """Runs of letters outside commands: words are quoted, names of functions become commands."""
    text = re.sub(r"(?<!-)-{2,}(?!-)", ' "--" ', _abbreviated(text))
    parts, at = [], 0
    for match in _RUN.finditer(text):
        parts += [text[at : match.start()], _run(text, match)]
        at = match.end()
    return "".join(parts) + text[at:]


def _run(text: str, match: re.Match[str]) -> str:
    run = match.group()
    if not run[0].isalpha():
        return run
    before, after = text[: match.start()], text[match.end() :]
    low = run.lower()
    if before.endswith((r"\begin{", r"\end{")) or (len(run) == 2 and run[0] == "d" and r"\int" in before):
        return run
    seconds = run in ("sec", "min") and re.match(r"\s*(?:$|[\d,.;)/\"])", after) is not None
    if run in _PLAIN_NAMES or (run in _FUNCTIONS and not seconds):
        return rf"\{_PLAIN_NAMES.get(run, run)} "
    if len(run) == 1:
        return f'"{run}"' if _is_unit_letter(run, before, after) else run
    if low == "mod":
        return r"\mod "
    if is_symbol(run, before, after):
        return f'"{run}"'
    behind_number = re.search(r"(?:\d|\d[.)}]|/|\}\s|\)\s|\d\s|\"\s)\s*$", before) is not None
    if len(run) <= 3 and ends_in_pi(before) and (is_word := is_unit_behind_pi(run, after)) is not None:
        return f'"{run}"' if is_word else run
    if run in ("am", "pm") and not is_of_time(before, after):
        return run
    alone = before[-1:] in ("", " ", ",", "(", '"') and after[:1] in ("", " ", ",", ".", ":", ")", '"', "'")
    if low in _SHORT_ANYWHERE and (alone or before[-1:].isdigit() or before.endswith(("}", ")"))):
        return f' "{low}" '
    if run == "in" and before[-1:].isdigit() and re.fullmatch(r"\s*(?:\^\s*\{?[23]\}?\s*)?", after):
        return '"in"'
    if low in _SHORT or (len(run) == 2 and low in ("in", "as")):
        return f'"{run}"' if alone or (low in ("am", "pm") and behind_number) else run
    if len(run) <= 3 and is_unit(run):
        return f'"{run}"' if behind_number or alone else run
    if len(run) <= 3 and alone and run.islower() and before.strip() and _WORD_BESIDE.search(before + after):
        return f'"{run}"'
    return f'"{run}"' if len(run) >= 4 or low in NUMBER_WORDS else run


def _is_unit_letter(letter: str, before: str, after: str) -> bool:
    """A single letter is a unit after a number and a space, or in a quotient of units, at the end."""
    if not re.fullmatch(r"\s*(?:\^\{?-?\d\}?)?\s*(?:/\s*[a-z]+(?:\^\{?\d\}?)?)?\s*", after):
        return False
    if (letter in LETTERS or letter in "AKCTF") and _NUMBER_AND_SPACE.search(before):
        return True
    if letter in "CF" and re.search(r"(?:\\circ|degrees?)\s*\}?\s*$", before):
        return True
    quotient = r"(?:\d\s*[a-z]+|\"|\\pi\s*(?:[cmdk]m|in|ft|rad))(?:\^\{?\d\}?)?\s*/\s*$"
    return letter in LETTERS and re.search(quotient, before) is not None


def _commands(text: str) -> str:
    text = _COMMAND.sub(_command, text)
    text = re.sub(r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ ?|\\circ ?", r"\\deg ", text)
    text = re.sub(r"\^\s*\{\s*('+)\s*\}|\^\s*('+)", lambda m: m[1] or m[2], text)
    if text.lstrip().startswith("\\color"):
        text = re.sub(r"\\color[a-z]*", " ", text)
    return text


def _command(match: re.Match[str]) -> str:
    name = match[1]
    same = _SAME.get(name, name)
    if same[0].isalpha():
        return rf"\{same} "
    return rf"\{same}" if same in "{}" else f" {same} " if same[0] == '"' else same


def _tidy(text: str) -> str:
    text = text.replace("**", "^").replace("\\!", "")
    text = re.sub(r"(?<=\d)\s*\*\s*|\s*\*\s*(?=[\dA-Za-z(\\])", r"\\cdot ", text)
    text = re.sub(r"(?<=\d)\s+x\s+(?=10\s*\^)|(?<=\d)x(?=10\s*\^)", r"\\cdot ", text)
    text = re.sub(r"([)\]}])\s*U\s*(?=[(\[]|\\\{)", r"\1\\cup ", text)
    text = re.sub(r'"mod(?:ulo)?"', r"\\mod ", text)
    text = re.sub(
        r"\(\s*\\mod\s*([^()]*)\)|\\pmod\s*\{([^{}]*)\}|\\pmod\s*(\w+)|\\mod\s*(\w+|\{[^{}]*\})",
        _modulus,
        text,
    )
    text = _UNEQUAL.sub(lambda m: m.group() if m[1] else r"\ne ", text)
    text = re.sub(r"<\s*=", r"\\le ", re.sub(r">\s*=", r"\\ge ", text))
    text = re.sub(r'(?<=[\d)}]) *"squared"', "^{2}", re.sub(r'(?<=[\d)}]) *"cubed"', "^{3}", text))
    text = re.sub(r"(?<=\d) +R +(?=\d)", ' "remainder" ', text)
    text = re.sub(r"\\R *- *(?=\\\{)", r"\\R \\setminus ", text)
    text = " ".join(text.split())
    text = re.sub(r"(?:(?<!!) )?([=<>+/^_]) ?", r"\1", text)
    text = re.sub(r"(?<=[(\[{]) | (?=[)\]},;:])", "", text)
    text = re.sub(r"(\\deg ?\d+(?:\.\d+)?) ?'(?!')", r'\1 "arcminute"', text)
    text = re.sub(r" [.,;]$", "", text)
    text = re.sub(r"(?<=\d) ?& ?(?=\d)", ' "and" ', text) if r"\begin" not in text else text
    text = re.sub(r"(\$ ?\d[\d.,]*) ?([MBKk])$", lambda m: f'{m[1]} "{_SIZES[m[2]]}"', text)
    if text[-1:] == "[" or ("]" in text and _INTERVALS.fullmatch(text)):
        text = _INTERVAL.sub(_interval, text)
    return re.sub(r'((?:"arcminute"|\\deg) ?\d+(?:\.\d+)?) ?\'\'', r'\1 "arcsecond"', text).rstrip("\\; ")


def _interval(match: re.Match[str]) -> str:
    """`]0, 1[` is open at both ends."""
    left, inner, right = match.groups()
    return ("[" if left == "[" else "(") + inner + ("]" if right == "]" else ")")


def _modulus(match: re.Match[str]) -> str:
    value = next(group for group in match.groups() if group is not None).strip()
    return rf"\mod {{{value.strip('{}')}}}"
