"""What follows a number: units, counted things, multipliers, and marks such as p.m.

A unit is a word or symbol of the lists below, or powers and quotients of them. Counted things that no list
can hold (`7 marbles`) count as units if they are plural and none of their words is in NO_UNIT.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from a2r_train.verify.prefixes import has_own_case


def vocabulary(words: str) -> set[str]:
    """The words of a text as a set."""
    return set(words.split())


def in_order(words: str) -> list[str]:
    return words.split()


# base, then symbols and words of the same unit; a number in front is its size in base units
_TABLE = """
m: m meter metre | 1/1000 mm millimeter millimetre
m: 1/100 cm centimeter centimetre | 1/10 dm decimeter decimetre
m: 1000 km kilometer kilometre kms | 1/1000000 micrometer micrometre micron
m: 1/1000000000 nm nanometer nanometre
m: 254/10000 in inch inches | 3048/10000 ft foot feet | 9144/10000 yd yds yard | 1609344/1000 mi mile
s: s sec secs second | 1/1000 ms millisecond | 1/1000000 microsecond | 60 min mins minute | 3600 h hr hrs hour
s: 86400 day | 604800 week wk wks | 1209600 fortnight
year: yr yrs year | 1/12 month mo mos | 10 decade | 100 century centuries
g: g gm gms gram gramme | 1/1000 mg milligram | 1/1000000 microgram
g: 1000 kg kgs kilogram kilo | 1000000 ton tonne
lb: lb lbs pound | 1/16 oz ounce
l: L l liter litre | 1/1000 mL ml milliliter millilitre cc | 1/1000000 microliter
l: 1/100 cL cl centiliter centilitre
gal: gal gallon | 1/4 qt quart | 1/8 pint | 1/16 cup | 1/256 tbsp tablespoon | 1/768 tsp teaspoon
dollar: $ dollar usd buck | 1/100 cent penny pennies ¢
pound-sterling: £ gbp quid | 1/100 pence
euro: € eur euro
rupee: ₹ rs inr rupee
yen: ¥ jpy yen
yuan: yuan rmb
degree: ° degree deg | 1/60 arcminute | 1/3600 arcsecond
radian: rad rads radian
celsius: celsius centigrade
fahrenheit: fahrenheit
kelvin: K kelvin
hz: Hz hz hertz | 1000 khz kHz kilohertz | 1000000 mhz MHz megahertz
newton: N newton | 1000 kN kilonewton
joule: J joule | 1000 kJ kilojoule | 1000000 MJ megajoule
watt: W watt | 1/1000 mW milliwatt | 1000 kW kilowatt | 1000000 MW megawatt | 1000000000 GW gigawatt
watt-hour: Wh | 1000 kWh kilowatt-hour kilowatthour
pascal: Pa pascal | 1000 kPa kilopascal | 1000000 MPa | 101325 atm | 100000 bar
psi: psi
electronvolt: eV electronvolt | 1000 keV | 1000000 MeV
volt: V volt | 1/1000 mV millivolt | 1/1000000 microvolt | 1000 kV kilovolt
ampere: A amp ampere | 1/1000 mA milliampere milliamp | 1/1000000 microampere
ohm: ohm Ω | 1/1000 milliohm | 1000 kilohm kiloohm
farad: farad | 1/1000000 microfarad
coulomb: coulomb | 1/1000000 microcoulomb
tesla: tesla | 1/1000000 microtesla
henry: henry henries | 1/1000000 microhenry
weber: weber
mole: mol mols mole | 1/1000000 micromole
calorie: cal calorie | 1000 kcal
rpm: rpm
hectare: hectare ha
acre: acre
bit: bit | 8 byte | 8000 kB KB kilobyte | 8000000 MB megabyte
bit: 8000000000 GB gigabyte | 8000000000000 TB terabyte
unit: unit
point: point pt pts
person: people person persons
man: man men
woman: woman women
child: child children kid
foot-long: footlong
time: time
"""
# Symbols that are also products of letters: units only in `\text{}`, or last, behind a number and a space.
_SYMBOLS = """
coulomb: C | 1/1000 mC | 1/1000000000 nC | 1/1000000000000 pC
farad: F | 1/1000 mF | 1/1000000000 nF | 1/1000000000000 pF
tesla: T | 1/1000 mT
henry: H | 1/1000 mH
siemens: S siemens | 1/1000 mS | 1000000 MS
weber: Wb
m: 1/1000000000000 picometer picometre | 1/1000000000000000 fm femtometer | 1/10000000000 angstrom
m: 149597870700 AU | 1852 nmi NM | 1000000 Mm | 1000000000 Gm
lightyear: ly lightyear light-year
parsec: pc parsec | 1000 kpc | 1000000 Mpc
s: 1/1000000000 ns nanosecond | 1/1000000000000 ps picosecond | 1/1000000000000000 fs femtosecond | 1000000 Ms
year: 1000000 Myr | 1000000000 Gyr
g: 1/1000000000 ng nanogram | 1000000 Mg
l: 1000000 ML
hz: 1/1000 mHz | 1000000000 GHz gigahertz | 1000000000000 THz
joule: 1/1000 mJ millijoule | 1000000000 GJ | 1000 KJ
calorie: 1000 Cal
newton: 1/1000 mN | 1000000 MN | 1/100000 dyn dyne
joule: 1/10000000 erg
watt: 1000000000000 TW | 1000 KW Kw
watt-hour: 1000 kwh KWH KWh
horsepower: hp horsepower
volt: 1000000 MV | 1000 KV
ampere: 1/1000000000 nA
electronvolt: 1/1000 meV | 1000000000 GeV | 1000000000000 TeV
pascal: 1000 kpa KPA KPa | 100 hPa mbar millibar | 1000000000 GPa | 101325/760 torr mmHg
mole: 1/1000 mmol millimole | 1/1000000000 nmol | 1000 kmol
dalton: u amu Da dalton
ppm: ppm
ppb: ppb
decibel: dB decibel
candela: cd candela
lumen: lm lumen
becquerel: Bq becquerel
curie: Ci curie
gray: Gy gray
knot: kn knot
btu: BTU Btu btu
bit: 1000 kb kbit | 1000000 Mbit
"""
_IRREGULAR = vocabulary(
    "mice geese fish sheep deer dice teeth cattle oxen loaves leaves knives shelves wolves cookies candy "
    "money staff luggage furniture moose salmon trout bacteria data vertices matrices indices radii axes "
    "cacti red blue green yellow black white integer number value way apple orange dog cat book student "
    "solution digit edge piece square-unit"
)
MULTIPLIERS = {
    "hundred": Fraction(100), "thousand": Fraction(1000), "million": Fraction(10**6),
    "billion": Fraction(10**9),
    "trillion": Fraction(10**12), "dozen": Fraction(12), "pair": Fraction(2), "score": Fraction(20),
    "gross": Fraction(144), "half": Fraction(1, 2), "halve": Fraction(1, 2), "third": Fraction(1, 3),
    "fourth": Fraction(1, 4), "fifth": Fraction(1, 5), "sixth": Fraction(1, 6), "seventh": Fraction(1, 7),
    "eighth": Fraction(1, 8), "ninth": Fraction(1, 9), "tenth": Fraction(1, 10), "hundredth": Fraction(1,
    100),
    "lakh": Fraction(10**5), "lac": Fraction(10**5), "crore": Fraction(10**7),
    "quadrillion": Fraction(10**15), "quintillion": Fraction(10**18), "sextillion": Fraction(10**21),
    "thousandth": Fraction(1, 1000), "millionth": Fraction(1, 10**6), "twelfth": Fraction(1, 12),
}  # fmt: skip
# Plurals of other languages that would count as things otherwise: `5 millones`, `3 douzaines`.
MULTIPLIERS |= {
    **dict.fromkeys(["millones", "milhoes"], Fraction(10**6)), "milliard": Fraction(10**9),
    **dict.fromkeys(["millar", "millares", "millier", "milhare"], Fraction(1000)),
    **dict.fromkeys(["centena", "centaine", "ciento"], Fraction(100)),
    **dict.fromkeys(["decena", "dezena", "dizaine"], Fraction(10)),
    **dict.fromkeys(["docena", "douzaine"], Fraction(12)),
    **dict.fromkeys(["tercio", "tiers"], Fraction(1, 3)),
    "cuarto": Fraction(1, 4), "quinto": Fraction(1, 5), "medio": Fraction(1, 2), "demi": Fraction(1, 2),
}  # fmt: skip
_NUMBER_WORDS = in_order(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = in_order("twenty thirty forty fifty sixty seventy eighty ninety")
NUMBER_WORDS = {word: i for i, word in enumerate(_NUMBER_WORDS)} | {
    word: 10 * i for i, word in enumerate(_TENS, 2)
}
# Words that change the number before them, add another answer, or comment on it.
NO_UNIT = vocabulary(
    "or and but nor not cannot versus vs maybe perhaps possibly probably over under plus minus negative "
    "positive squared cubed square cube root divided multiplied by than then less fewer more most least at "
    "about around nearly almost approximately twice thrice double triple half if when where because since "
    "so thus is was are were be been being has have had does do did this that these those it its he she "
    "they we you remainder percent modulo mod base power to from until through between with without except "
    "only never always wrong right correct incorrect false true no yes none either neither both all any "
    "some factorial prime even odd guess halves thirds tens ones hundreds thousands millions billions "
    "trillions infinity infinite undefined which what who how why unless else otherwise instead rather as "
    "of in on per a an the each every first up down out off"
) | set(NUMBER_WORDS)
NO_UNIT |= {f"{word.removesuffix('y')}ies" if word[-1] == "y" else f"{word}s" for word in NUMBER_WORDS}
NO_UNIT |= vocabulary("sixes minuses pluses negatives positives percents factorials basis")
_FRACTION_WORD = re.compile(
    r"\w*(?:teen|tie|if|six|seven|eigh|nin|ten|eleven|twelf|dred|sand|llion|ir|ur)th?s?|\w*illions?"
)
_ADJECTIVES = vocabulary(
    "more fewer different "
    "distinct total whole "
    "full possible "
    "equal such "
    "new extra additional "
    "individual "
    "unique separate "
    "full-size consecutive u.s us american"
)
# Words with which a writer takes back what stands before or behind them: `5 fails`, `extraneous: 5`.
REJECTED = vocabulary(
    "extraneous spurious erroneous fallacious bogus fails fail failed failing rejected reject rejects "
    "invalid invalidated inadmissible disallowed "
    "excluded exclude excludes discarded discard discards dismissed eliminated omitted ignored removed "
    "unacceptable inacceptable impossible impermissible unallowed forbidden unsuitable inapplicable "
    "unphysical nonphysical non-physical unfeasible infeasible "
    "meaningless nonsense nonsensical absurd contradictory contradicts contradicting violates violating "
    "violated refuted disproved disproven ruled thrown crossed struck fake phantom "
    "disqualified disqualifies wrongly incorrectly falsely mistakenly mistaken"
)
_VERBS = {word for word in REJECTED if word.endswith("s") and not word.endswith(("us", "ss"))}
_CANDIDATES = vocabulary("root solution value answer case number candidate zero result integer")
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
_PER = {"per", "a", "an", "each", "every", "/"}
_LAST = vocabulary("total altogether each left away old tall long wide high deep apart overall only")
MARKS = {"am", "pm"}  # only of a time of day
SIGNS = {"increase": 1, "gain": 1, "profit": 1, "decrease": -1, "loss": -1, "drop": -1, "decline": -1}
_COMPOUND: dict[str, tuple[str, ...]] = {
    "mph": ("mile", "/", "hour"),
    "kph": ("km", "/", "hour"),
    "kmh": ("km", "/", "hour"),
    "mps": ("m", "/", "s"),
    "mpg": ("mile", "/", "gallon"),
    "mM": ("mmol", "/", "l"),
    "nM": ("nmol", "/", "l"),
    "Nm": ("N", "m"),  # by the case of its letters: nm is a length
}
_COMPOUND_LOW = {name.lower() for name in _COMPOUND}
_DISCOUNTS = {"discount", "off"}
# Each line has words of two opposite senses. They may be left out, but not exchanged.
_OPPOSITES = """
more extra additional greater larger bigger increased | fewer less smaller decreased
older elder senior | younger junior
taller longer | shorter
faster quicker | slower
higher upper above | lower below
heavier | lighter
later after next | earlier before previous
warmer hotter | cooler colder
inner inside | outer outside
winning | losing
"""

Dimensions = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Unit:
    """`factor` times a product of powers of base units; no dimensions for a bare number."""

    factor: Fraction = Fraction(1)
    dimensions: Dimensions = ()


@dataclass(frozen=True)
class Tail:
    """What the words after a number say: a multiplier, a unit, per cent; the mark `:` is that of a ratio."""

    multiplier: Fraction = Fraction(1)
    unit: Unit = Unit()
    percent: bool = False
    mark: str = ""


def _units(table: str) -> dict[str, tuple[str, Fraction]]:
    found: dict[str, tuple[str, Fraction]] = {}
    for line in table.strip().splitlines():
        base, _, rest = line.partition(": ")
        for alternative in rest.split("|"):
            names = alternative.split()
            factor = Fraction(names.pop(0)) if names[0][0].isdigit() else Fraction(1)
            found |= dict.fromkeys(names, (base, factor))
            found |= {f"{name}s": (base, factor) for name in names if len(name) > 2 and name.isalpha()}
    return found


def _senses(table: str) -> dict[str, tuple[str, int]]:
    """Each word with a mark of its sense: the words of its line behind an arrow, and no power."""
    found: dict[str, tuple[str, int]] = {}
    for line in table.strip().splitlines():
        for arrow, words in zip("↑↓", line.split(" | "), strict=True):
            found |= dict.fromkeys(words.split(), (f"{arrow} {line}", 0))
    return found


_SENSES = _senses(_OPPOSITES)
UNITS = _units(_TABLE)
SYMBOLS = _units(_SYMBOLS)
_KG = 1000  # g
# Units that are products of others, in g, m, s and A; each with its size.
_DERIVED: dict[str, tuple[Fraction, Dimensions]] = {
    "l": (Fraction(1, 1000), (("m", 3),)),
    "hz": (Fraction(1), (("s", -1),)),
    "becquerel": (Fraction(1), (("s", -1),)),
    "newton": (Fraction(_KG), (("g", 1), ("m", 1), ("s", -2))),
    "joule": (Fraction(_KG), (("g", 1), ("m", 2), ("s", -2))),
    "calorie": (Fraction(_KG * 4184, 1000), (("g", 1), ("m", 2), ("s", -2))),
    "watt": (Fraction(_KG), (("g", 1), ("m", 2), ("s", -3))),
    "watt-hour": (Fraction(_KG * 3600), (("g", 1), ("m", 2), ("s", -2))),
    "pascal": (Fraction(_KG), (("g", 1), ("m", -1), ("s", -2))),
    "gray": (Fraction(1), (("m", 2), ("s", -2))),
    "coulomb": (Fraction(1), (("ampere", 1), ("s", 1))),
    "volt": (Fraction(_KG), (("ampere", -1), ("g", 1), ("m", 2), ("s", -3))),
    "ohm": (Fraction(_KG), (("ampere", -2), ("g", 1), ("m", 2), ("s", -3))),
    "siemens": (Fraction(1, _KG), (("ampere", 2), ("g", -1), ("m", -2), ("s", 3))),
    "farad": (Fraction(1, _KG), (("ampere", 2), ("g", -1), ("m", -2), ("s", 4))),
    "tesla": (Fraction(_KG), (("ampere", -1), ("g", 1), ("s", -2))),
    "weber": (Fraction(_KG), (("ampere", -1), ("g", 1), ("m", 2), ("s", -2))),
    "henry": (Fraction(_KG), (("ampere", -2), ("g", 1), ("m", 2), ("s", -2))),
    "hectare": (Fraction(10_000), (("m", 2),)),
    "acre": (Fraction(40_468_564_224, 10**7), (("m", 2),)),
}
_LETTERS_OF_TEMPERATURES = [
    {Unit(*_DERIVED[letter]), Unit(Fraction(1), ((scale, 1),))}
    for letter, scale in (("coulomb", "celsius"), ("farad", "fahrenheit"))
]
LETTERS = vocabulary("m s g h L l N J W V")


def named(word: str) -> tuple[str, Fraction] | None:
    """Base and factor of one unit word or symbol."""
    if word in UNITS or word in SYMBOLS or len(word) < 2 or has_own_case(word):
        return UNITS.get(word) or SYMBOLS.get(word)
    return UNITS.get(word.lower())


def is_unit(word: str) -> bool:
    """Whether letters are a unit or a product of units, also beside letters that are none."""
    low = word.lower()
    return word in UNITS or (len(low) > 1 and low in UNITS) or low in _COMPOUND_LOW


def read_tail(words: list[tuple[str, int]], single: bool) -> Tail | None:
    """What (word, power) pairs say together, `/` among them; None unless all of them are understood.

    `single`: the number is 1, so the counted thing may be in the singular.
    """
    words = [(word if len(word) == 1 else word.strip("."), power) for word, power in words]
    words = [(one, power) for word, power in words for one in _parts_of(word)]
    multiplier, at = Fraction(1), 0
    while at < len(words) and (by := _multiplier(words[at][0])) is not None:
        multiplier, at = multiplier * by, at + 1
    if at and at < len(words) and words[at][0].lower() == "of":
        at += 1
    rest, percent = words[at:], False
    if rest and rest[0][0].lower() in ("percent", "per-cent", "%"):
        rest, percent = rest[1:], True
    if rest and (sign := SIGNS.get(rest[-1][0].lower())):
        rest, multiplier = rest[:-1], multiplier * sign
    elif percent and rest and rest[-1][0].lower() in _DISCOUNTS:
        rest = rest[:-1]
    unit = _quotient(rest, single)
    return None if unit is None else Tail(multiplier, _in_sense(unit, rest), percent)


def _in_sense(unit: Unit, words: list[tuple[str, int]]) -> Unit:
    """The unit with the sense of words such as `fewer`, as dimensions of power 0 for `may_be_same`."""
    marks = {_SENSES[low] for word, _ in words if (low := word.lower()) in _SENSES}
    if not marks or not unit.dimensions:
        return unit
    return Unit(unit.factor, (*unit.dimensions, *sorted(marks)))


def _parts_of(word: str) -> tuple[str, ...]:
    """The units that one word stands for: `mph`, `Nm`."""
    return _COMPOUND.get(word) or _COMPOUND.get(word.lower()) or (word,)


def _multiplier(word: str) -> Fraction | None:
    word = word.lower()
    return MULTIPLIERS.get(word) or MULTIPLIERS.get(word.removesuffix("s"))


def _quotient(words: list[tuple[str, int]], single: bool) -> Unit | None:
    """`miles per hour`, `m/s^2`, `cups of sugar`, `apples each`."""
    while words and words[-1][0].lower() in _LAST:
        words = words[:-1]
        words = words[:-1] if words and words[-1][0].lower() == "in" else words
    for i, (word, _) in enumerate(words):
        low = word.lower()
        if i and low == "of":  # cups of sugar
            things = words[i + 1 :]
            return _quotient(words[:i], single) if things and all(_is_thing(w) for w, _ in things) else None
        if low in _PER and (i or low in ("per", "/")):  # 5 per hour
            last = max(j for j in range(i, len(words)) if words[j][0].lower() in _PER)  # of m/s/s
            above, below = _quotient(words[:last], single), _quotient(words[last + 1 :], True)
            if above is None or below is None or not below.dimensions:
                return None
            return times(above, Unit(1 / below.factor, tuple((name, -p) for name, p in below.dimensions)))
    return _product(words, single)


def _product(words: list[tuple[str, int]], single: bool) -> Unit | None:
    found, power = Unit(), 1
    words = [(word, p) for word, p in words if word.lower() not in _ADJECTIVES or len(words) == 1]
    for word, own in words:
        if (by := _POWERS.get(word.lower())) and not found.dimensions:
            power = by
        elif by:
            found = _power(found, by)
        elif known := named(word):
            found = times(found, _power(_unit_of(*known), power * own))
            power = 1
        else:
            return _thing([w for w, _ in words], single) if power == 1 and not found.dimensions else None
    return found if power == 1 or not words else None


def _unit_of(base: str, factor: Fraction) -> Unit:
    """A unit of the table; a litre is a cubic decimetre, and a newton a product of three units."""
    size, dimensions = _DERIVED.get(base, (Fraction(1), ((base, 1),)))
    return Unit(factor * size, dimensions)


def _thing(words: list[str], single: bool) -> Unit | None:
    """Counted things of up to three words, the last one plural: `red marbles`, `ways`."""
    last = words[-1].lower()
    if len(words) > 3 or has_own_case(words[-1]) or not all(_is_thing(word) for word in words):
        return None
    if known := named(last):
        return _unit_of(*known)
    plural = last.endswith("s") and not last.endswith(("ss", "ous"))
    if not (plural or single or last in _IRREGULAR) or _is_rejection(words):
        return None
    return Unit(Fraction(1), ((_singular(last), 1),))


def _is_rejection(words: list[str]) -> bool:
    """`extraneous solution` or `fails` behind a number takes it back; `extraneous solutions` are counted."""
    low = {word.lower() for word in words}
    return bool(low & _VERBS) or (words[-1].lower() in REJECTED | _CANDIDATES and bool(low & REJECTED))


def _is_thing(word: str) -> bool:
    word = word.lower()
    if word in NO_UNIT or _multiplier(word) is not None or word in SIGNS or word in MARKS:
        return False
    return len(word) > 2 and word.replace("-", "").isalpha() and not _FRACTION_WORD.fullmatch(word)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("ches", "shes", "xes")) else word.removesuffix("s")


def _power(unit: Unit, power: int) -> Unit:
    return Unit(unit.factor**power, tuple((name, p * power) for name, p in unit.dimensions))


def times(a: Unit, b: Unit) -> Unit:
    powers = dict(a.dimensions)
    for name, power in b.dimensions:
        powers[name] = powers.get(name, 0) + power
    return Unit(a.factor * b.factor, tuple(sorted((name, p) for name, p in powers.items() if p)))


def number_word(words: list[str]) -> int | None:
    """The value of `five`, `twenty one`; None for anything else."""
    values = [NUMBER_WORDS.get(word.lower()) for word in words]
    if len(values) == 1:
        return values[0]
    if len(values) == 2 and values[0] and values[1] and values[0] >= 20 and values[1] < 10:
        return values[0] + values[1]
    return None


def is_temperature(s: Tail, t: Tail) -> bool:
    """Whether one of two units is C or F, and the other a temperature."""
    return {s.unit, t.unit} in _LETTERS_OF_TEMPERATURES


def may_be_same(s: Tail, t: Tail) -> bool:
    """Whether units with two names may be one: a degree is one of some scale, C and F are also the letters of
    temperatures, pounds are also money, and `fewer` may be left out, but is not `more`.
    """
    if is_temperature(s, t):
        return True
    one, other = _without_senses(s.unit), _without_senses(t.unit)
    if one == other:
        return not _opposed(s.unit, t.unit)
    names = {name for unit in (one, other) for name, _ in unit}
    if len(names) == 2 and "degree" in names:
        return bool(names & {"celsius", "fahrenheit"})
    return {one, other} == {(("lb", 1),), (("pound-sterling", 1),)}


def _without_senses(unit: Unit) -> Dimensions:
    return tuple((name, power) for name, power in unit.dimensions if power)


def _opposed(a: Unit, b: Unit) -> bool:
    """Whether one unit has the sense opposite to one of the other."""
    senses = [{name for name, power in unit.dimensions if not power} for unit in (a, b)]
    turned = {name.translate(str.maketrans("↑↓", "↓↑")) for name in senses[0]}
    return bool(turned & senses[1])
