"""Training a synthesizer with TRL: `sft` (rejection-sampled targets), `grpo` (verifiable reward), and what
both share.
"""

from a2r_train.train.quiet import hide_warnings

hide_warnings()
