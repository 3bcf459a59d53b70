r"""Chemical formulas in one spelling: `\mathrm{H_2O}`, `\ce{H2O}` and `H₂O` are `H2O`."""

from __future__ import annotations

import re

from a2r_train.verify.units import vocabulary

_ELEMENTS = vocabulary(
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr "
    "Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta "
    "W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am"
)
_MOLECULES = vocabulary("H2 N2 O2 O3 F2 Cl2 Br2 I2 P4 S8")  # of one element; `C_2` is a name with an index
_MARKS = re.compile(r'\\(?:mathrm|ce)(?![a-z])|["{}_ ]')
_ATOM = re.compile(r"[A-Z][a-z]?")
_MANY = r"(?:[2-9]|[1-9]\d)?"
_ATOMS = rf"(?:[A-Z][a-z]?{_MANY})"
_FORMULA = re.compile(rf"((?:{_ATOMS}|\({_ATOMS}+\){_MANY})+)(?:\^?([2-4]?[+-]))?")


def formula(text: str) -> str | None:
    """A formula with numbers of atoms or a charge, without its marks; None for anything else.

    Without either it may be a product of letters, or a segment.
    """
    if not (text[-1:].isdigit() or text[-1:] in '})"+-' or text[-1:].isupper()) or len(text) > 80:
        return None
    match = _FORMULA.fullmatch(_MARKS.sub("", text))
    if not match or not (match[2] or re.search(r"\d", match[1])):
        return None
    atoms = set(_ATOM.findall(match[1]))
    if not atoms <= _ELEMENTS or (len(atoms) == 1 and not match[2] and match[1] not in _MOLECULES):
        return None
    return match[1] + (f"^{match[2]}" if match[2] else "")
