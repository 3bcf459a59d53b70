"""Training a synthesizer with TRL: `sft` (rejection-sampled targets), `grpo` (verifiable reward), and what
they share.
"""

from a2r_train.quiet import hide_bars, hide_warnings

hide_bars()
hide_warnings()
