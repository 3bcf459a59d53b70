r"""Short runs of letters: a product such as `abc`, or a word such as `cat`, the `cm` of `16\pi cm` or a.m."""

from __future__ import annotations

import re

from a2r_train.verify.units import vocabulary

_NAMES = set("abcdghklmnpqrstuvwxyz")  # usual names of variables; e and i are numbers, and the rest is rare
_VOWEL = re.compile("[aeiou]", re.IGNORECASE)
# Words of three different letters of these, with an a or u.
_WORDS = vocabulary(
    "abs act alp amp amy and ant any apt arc ark arm art ash ask asp bad bag ban bar bat bay bra bud bug "
    "bum bun bus but buy cab cad cal cam can cap car cat caw cay cpu cub cup cur cut dab dam dan dax day "
    "dna dub dug duh duk dun gab gal gap gas gay gnu gpa gpu gum gun gus gut guy had hag hal ham han has "
    "hat haw hay hub hug hum hun hut kat kay lab lac lad lag lam lap las lat law lax lay lug luv lux mac "
    "mad man map mar mat maw max may mud mug mur nab nag nap nat nay nub nul nut pac pad pal pam pan par "
    "pas pat paw pay plu pub pug pun pus put qua rag ram ran rap rat raw ray rna rub rug rum run rut sac "
    "sad sag sal sam san sap sat saw sax say spa sub sud sum sun sup sur tab tad tag tam tan tap tar tau "
    "tax thu tub tug tun tux ugh urn usa val van var vat wad wag wan war was wax way yak yam yap yuk yum "
    "zap"
)
_SIZES_OF_FIGURES = set("abchlrs")  # letters that often follow pi
_NO_SIZES = vocabulary("as all has lb lbs hrs cal")  # words and units of these letters
_LENGTHS = vocabulary("mm cm dm km in ft yd mi")
_POWER_LAST = re.compile(r"\s*\^\s*\{?[23]\}?\s*(?:/\s*[A-Za-z]+\s*)?[.,]?")
_HOUR_BEFORE = re.compile(
    r"(?:(?<![\d.:^_/{])(?:(?:0?[1-9]|1[0-2])\)?|\d\d?(?::\d\d\)?|(?=\s)))|\"?(?:clock|noon|midnight)\"?)\s*$"
)
_MORE_MATHEMATICS = re.compile(r"\s*(?:[\^_+*/=]|-\s*[^\s\d]|[A-Za-z](?![A-Za-z])|\\(?!text|to|,))")


def is_word(text: str) -> bool:
    """Whether letters without a sign are a word. The case of the letters of a product counts, that of a word
    does not, so `aBc` is a product. So are three different letters that are all usual names of variables,
    unless they are a word of the list; and so is what has no vowel. Names and abbreviations are words.
    """
    if re.fullmatch(r"[A-Z]{3,}|\d+[A-Z]{2,}", text):
        return True
    if not (re.fullmatch("[A-Za-z]{3,}", text) and _VOWEL.search(text)):
        return False
    if not (text.islower() or text.istitle()):
        return False
    return text.istitle() or text in _WORDS or len(set(text)) != 3 or not set(text) <= _NAMES


def ends_in_pi(before: str) -> bool:
    end = before.rstrip().removesuffix("}").rstrip()
    return end.endswith("pi") and not end[-3:-2].isalpha()


def is_unit_behind_pi(run: str, after: str) -> bool | None:
    r"""Whether letters behind pi are a unit, as in `16\pi cm^3`, or a product, as in `\pi rs`. None if the
    rules for other letters know.
    """
    if set(run) <= _SIZES_OF_FIGURES and run not in _NO_SIZES:
        return False
    return True if run in _LENGTHS and _POWER_LAST.fullmatch(after) else None


def is_of_time(before: str, after: str) -> bool:
    """Whether `am` or `pm` follows a time of day, or begins the text. Otherwise it is a product: `F = am`."""
    if _MORE_MATHEMATICS.match(after) or "^" in before or "+" in before:
        return False
    return not before.strip() or _HOUR_BEFORE.search(before) is not None
