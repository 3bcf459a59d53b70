r"""Extract an answer, compare it with gold, vote by equivalence. Only the verdict `correct` earns reward.

Verifiers: `math`, `math_last_number` (falls back to the last number of the text), `exact` (text, ignoring case and
spacing), `multiple_choice` (a letter A to J, or the text of an option of its problem), `python_tests` (a program, by
hidden tests), `reasoning_gym` (the library's own score), or the dotted path of a custom function (`own.py`). A custom
function gets the answer that `math` extracts, unless its `answer_in` says where the answer is. The working directory is
on its import path. If it raises, the run stops with an InputError.

Except for custom verifiers, the verdict does not depend on which of the two answers is the gold one.

The policy of `math`. tests/unit/test_verify.py reads this table and checks each row, each answer against each gold:

| case | answers -> gold | verdict |
|---|---|---|
| no answer | `I do not know`, `` -> 5 | unparsable, and "" does not vote |
| thinking only, or never closed | `<think>\boxed{5}` -> 5 | unparsable |
| text after the answer | `\boxed{5} is it.` -> 5 | correct |
| boxed answers, equal | `\boxed{x=5} \boxed{5}` -> 5 | correct |
| boxed answers, different | `\boxed{4} \boxed{5}` -> 5 | incorrect: hedging never pays |
| two answers joined in one box | `\boxed{4 \lor 5}`, `\boxed{4 | 5}` -> 5 | incorrect or unparsable: all of it must parse |
| a chain of equations | `\boxed{x = 2 + 3 = 5}` -> 5 | correct; only the last part counts |
| a box that was cut, with `math_last_number` too | `so \boxed{5` -> 5 | unparsable |
| a list for a single gold | `\boxed{5, 6}`, `\boxed{5 \text{ or } 6}` -> 5 | incorrect |
| numbers | `\boxed{\frac{2}{4}}` -> \frac12 | correct: rationals, powers, factorials (also double) and binomials have exact values |
| numbers that are near | `\boxed{1-2^{-60}}`, `\boxed{0.99999999}`, `\boxed{\frac{50!-1}{50!}}` -> 1 | incorrect |
| fraction and decimal | `\boxed{0.5}` -> \frac12 | correct |
| decimal of a fraction, 6 significant digits or more | `\boxed{0.333333}` -> \frac13 | correct; it is the gold, rounded |
| decimal of a fraction, cut and not rounded | `\boxed{0.666666}` -> \frac23 | correct |
| decimal of a fraction, fewer digits, or wrong ones | `\boxed{0.33}`, `\boxed{0.3333334}` -> \frac13 | incorrect |
| decimal of an irrational number | `\boxed{3.14159}` -> \pi | correct by the same rule |
| two decimals | `\boxed{3.1416}` -> 3.14159 | incorrect unless equal |
| a number over 2^65536, which is never made | `\boxed{10^{10^{10}}}` -> 5 | unparsable |
| units | `\boxed{18 \text{ dollars}}`, `The answer is 18 dollars` -> 18 | correct |
| another unit | `\boxed{18 \text{ m}}` -> 18 \text{ cm} | incorrect |
| the same in another unit | `\boxed{150 \text{ cm}}` -> 1.5 \text{ m} | correct |
| a letter that is no unit | `\boxed{5t}`, `\boxed{5k}` -> 5 | incorrect |
| thousands and millions by a letter | `\boxed{5k}` -> 5000 | correct |
| a unit behind an expression | `\boxed{5x \text{ cm}}` -> 5x | correct |
| a rate, and what it counts | `\boxed{\$5 \text{ per hour}}` -> 5 | correct |
| an amount that is no rate | `\boxed{5 \text{ hours}}` -> 5 \text{ per hour} | incorrect |
| degrees and radians | `\boxed{45^\circ}` -> \frac{\pi}{4} | correct |
| a sum of equal units | `\boxed{3 \text{ cm} + 2 \text{ cm}}` -> 5 \text{ cm} | correct |
| several units | `\boxed{2 \text{ hours } 15 \text{ minutes}}` -> 2 | incorrect; all parts count |
| multipliers | `\boxed{1.5\text{ million}}` -> 1500000 | correct |
| numbers in words | `\boxed{\text{one hundred and five}}` -> 105 | correct |
| words that are no unit | `\boxed{5 cents or six}`, `\boxed{5 squared}` -> 5 | incorrect or unparsable |
| a decimal comma, and a list | `\boxed{3,5}` -> 3.5 | correct |
| a list with a space, and a decimal | `\boxed{3, 5}` -> 3.5 | incorrect |
| a list that goes on | `\boxed{1, 2, 3, ...}` -> 1, 2, 3 | incorrect |
| percent | `\boxed{50\%}` -> 0.5 or 50 | correct |
| morning and evening | `\boxed{8:30 \text{ a.m.}}` -> 8:30 \text{ p.m.} | incorrect |
| a time of day is no ratio | `\boxed{4:15 \text{ p.m.}}`, `\boxed{2}` -> 8:30 \text{ p.m.} | incorrect |
| the same time of day | `\boxed{15:30}`, `\boxed{3:30}` -> 3:30 \text{ p.m.} | correct |
| thousands separators | `\boxed{1,234}`, `\boxed{1\,234}` -> 1234 | correct |
| ordinals | `\boxed{18th}`, `\boxed{18^{\text{th}}}` -> 18 | correct |
| a number with the ending of another ordinal | `\boxed{2st}` -> 2 | incorrect |
| a sum of money, and what it comes to | `\boxed{\$50 + \$48 = \$98}` -> 98 | correct |
| a sum of money that is wrong | `\boxed{\$50 + \$48 = \$99}` -> 99 | incorrect |
| mixed numbers | `\boxed{2\frac12}`, `\boxed{2 1/2}` -> 2.5 | correct |
| number bases | `\boxed{123_5}` -> 123_6 | incorrect |
| interval, other brackets | `\boxed{[0,1)}` -> (0,1) | incorrect |
| an inequality for an interval | `\boxed{0 < x \le 1}` -> (0,1] | correct |
| a linear inequality | `\boxed{-2x > -6}`, `\boxed{x < 3}` -> (-\infty,3) | correct |
| set, other order | `\boxed{\{2,1\}}` -> \{1,2\} | correct |
| list, other order | `\boxed{2, 1}`, `\boxed{2 \text{ and } 1}` -> 1, 2 | correct |
| boxes that are the parts of a list | `\boxed{1}, \boxed{2}` -> 2, 1 | correct |
| ordered pair, other order | `\boxed{(2,1)}` -> (1,2) | incorrect |
| names in a tuple | `\boxed{(b,a)=(2,1)}`, `\boxed{b=2, a=1}` -> (a,b)=(1,2) | correct |
| names in a tuple, exchanged | `\boxed{(b,a)=(1,2)}` -> (a,b)=(1,2) | incorrect |
| two unknowns, `or` for `and` | `\boxed{x=1 \text{ or } y=2}` -> x=1 \text{ and } y=2 | incorrect |
| equation, other form | `\boxed{2x - y = -3}` -> y = 2x + 3 | correct |
| equation, solved for another unknown | `\boxed{xy = 1}` -> y = \frac{1}{x} | correct |
| equal for positive unknowns only | `\boxed{x\sqrt{y}}` -> \sqrt{x^2y} | incorrect |
| equal where both are defined | `\boxed{\sqrt{x}\sqrt{y}}` -> \sqrt{xy} | correct |
| constant of integration, other letter | `\boxed{x^2 + K}` -> x^2 + C | correct |
| any whole number of periods, other letter | `\boxed{\frac{\pi}{6} + 2\pi n}` -> 2k\pi + \frac{\pi}{6} | correct |
| the letter of a length, not of periods | `\boxed{r\pi}` -> d\pi | incorrect |
| a congruence, another representative | `\boxed{x \equiv 10 \pmod 7}`, `\boxed{3 \pmod 7}` -> x \equiv 3 \pmod 7 | correct |
| a congruence, and a number | `\boxed{3}`, `\boxed{x = 3}` -> x \equiv 3 \pmod 7 | incorrect |
| several residues of one modulus | `\boxed{x \equiv \pm 1 \pmod 8}` -> x \equiv 7, 1 \pmod 8 | correct |
| another congruence that holds | `\boxed{1 \equiv 1 \pmod 7}` -> 2^{100} \equiv 2 \pmod 7 | incorrect |
| unit vectors, marked as such | `\boxed{3\mathbf{i} + 4\mathbf{j}}`, `\boxed{3\hat{\imath} + 4\hat{\jmath}}` -> (3,4) | correct |
| a complex number, and plain letters | `\boxed{3 + 4i}`, `\boxed{3i + 4j}` -> (3,4) | incorrect |
| unit vectors, another number of components | `\boxed{3\mathbf{i} + 4\mathbf{j}}` -> (3,4,0) | incorrect |
| product of vectors, other order | `\boxed{\vec{b} \times \vec{a}}` -> \vec{a} \times \vec{b} | incorrect |
| matrix, other brackets | `\boxed{\begin{pmatrix}1&2\end{pmatrix}}` -> \begin{bmatrix}1&2\end{bmatrix} | correct |
| matrix, as a list of its rows | `\boxed{[[1,2],[3,4]]}` -> \begin{pmatrix}1&2\\3&4\end{pmatrix} | correct |
| equal only near zero | `\boxed{|x-10|}` -> 10-x | incorrect |
| a divisor of letters | `\boxed{\gcd(n,10)}` -> 1 | incorrect |
| a date, other order of its words | `\boxed{14 \text{ March } 2015}`, `\boxed{2015-03-14}` -> \text{March 14, 2015} | correct |
| two dates, days exchanged | `\boxed{\text{May 3 and June 5}}` -> \text{May 5 and June 3} | incorrect |
| a remark in brackets | `\boxed{6 \text{ (by symmetry)}}`, `\boxed{6 \text{ (in cm)}}` -> 6 | correct |
| a remark that is more than a reason | `\boxed{6 \text{ (rejected)}}`, `\boxed{6 \text{ (or 7)}}` -> 6 | incorrect |
| an article | `\boxed{\text{an octagon}}` -> octagon | correct |
| words | `\boxed{\text{paris}}` -> Paris | correct |
| a choice and what it says | `\boxed{\text{(C) } 12}` -> C | correct |
| words, an anagram | `\boxed{Pairs}` -> Paris | incorrect |
| an answer that cannot be parsed, or over 2000 characters | `\boxed{\frac{}}` -> 5 | unparsable |
| an answer that hangs the comparison | `\boxed{\int_0^1 x^{x^{x^x}} dx}` -> 5 | timeout after 5 s |
| unparsable gold, at which `check_gold` raises when data is read | `\boxed{5}` -> \frac{ | unparsable |
"""

from a2r_train.verify.compare import (
    VERIFIERS,
    Judgement,
    bad_golds,
    check_contradictions,
    check_gold,
    check_left_out,
    check_verifier,
    equivalent,
    judge,
    judge_all,
    left_out,
    start_workers,
    unreadable_golds,
    warn_doubts,
    warn_failing_golds,
)
from a2r_train.verify.extract import extract
from a2r_train.verify.slips import doubts
from a2r_train.verify.traits import has_vote, traits_of
from a2r_train.verify.vote import Majority, majority

__all__ = [
    "VERIFIERS",
    "Judgement",
    "Majority",
    "bad_golds",
    "check_contradictions",
    "check_gold",
    "check_left_out",
    "check_verifier",
    "doubts",
    "equivalent",
    "extract",
    "has_vote",
    "judge",
    "judge_all",
    "left_out",
    "majority",
    "start_workers",
    "traits_of",
    "unreadable_golds",
    "warn_doubts",
    "warn_failing_golds",
]
