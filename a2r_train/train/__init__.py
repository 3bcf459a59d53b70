"""Training a synthesizer with TRL: `sft` (rejection-sampled targets), `grpo` (verifiable reward), and what
both share.
"""
