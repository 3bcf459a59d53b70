"""a2r-train: train the synthesizer of asymmetric two-stage reasoning (A2R, arXiv 2509.22044)."""

import os

__version__ = "0.1.0"

os.environ.setdefault(
    "HF_HUB_DISABLE_TELEMETRY", "1"
)  # TRL's trainers report that they run, unless told not to
