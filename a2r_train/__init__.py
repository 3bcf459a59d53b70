"""a2r-train: train the synthesizer of asymmetric two-stage reasoning (A2R, arXiv 2509.22044)."""

__version__ = "0.1.0"
