r"""Extract an answer, compare it with gold, vote by equivalence. Only the verdict `correct` ever earns reward.

Verifiers: `math`, `math_last_number` (falls back to the last number of the text), `exact` (text, ignoring case and
spacing), `multiple_choice` (a letter A to J), or the dotted path of the user's own `f(answer: str, gold: str) -> bool`
(`package.module.function` or `package.module:function`; the working directory is on its import path). Own functions get
the answer that `math` extracts. A wrong answer is a returned False; an exception stops the run with an InputError.

The policy of `math`, which tests/unit/test_verify.py reads from here and holds row by row, each answer against each gold:

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
| units | `\boxed{18 \text{ dollars}}`, `The answer is 18 dollars` -> 18 | correct |
| words that are no unit | `\boxed{5 cents or six}`, `\boxed{5 squared}` -> 5 | incorrect or unparsable |
| percent | `\boxed{50\%}` -> 0.5 or 50 | correct |
| fraction and decimal | `\boxed{0.5}` -> \frac12 | correct; decimals agree to 6 places |
| thousands separators | `\boxed{1,234}` -> 1234 | correct |
| interval, other brackets | `\boxed{[0,1)}` -> (0,1) | incorrect |
| set, other order | `\boxed{\{2,1\}}` -> \{1,2\} | correct |
| ordered pair, other order | `\boxed{(2,1)}` -> (1,2) | incorrect |
| matrix, other brackets | `\boxed{\begin{pmatrix}1&2\end{pmatrix}}` -> \begin{bmatrix}1&2\end{bmatrix} | correct |
| words (four letters or more) | `\boxed{\text{paris}}` -> Paris | correct |
| words, an anagram | `\boxed{Pairs}` -> Paris | incorrect |
| an answer that cannot be parsed, or over 2000 characters | `\boxed{\frac{}}` -> 5 | unparsable |
| an answer that hangs the comparison | `\boxed{10^{10^{10}}!}` -> 5 | timeout after 5 s |
| unparsable gold, at which `check_gold` raises when data is read | `\boxed{5}` -> \frac{ | unparsable |
"""

from a2r_train.verify.compare import (
    VERIFIERS,
    Judgement,
    check_gold,
    check_verifier,
    equivalent,
    judge,
    judge_all,
)
from a2r_train.verify.extract import extract
from a2r_train.verify.vote import Majority, majority

__all__ = [
    "VERIFIERS",
    "Judgement",
    "Majority",
    "check_gold",
    "check_verifier",
    "equivalent",
    "extract",
    "judge",
    "judge_all",
    "majority",
]
