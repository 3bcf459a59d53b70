"""Evaluation of the training: the panel of rows, paired statistics, diagnostics and reports."""

from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.run import evaluate

__all__ = ["EvaluateConfig", "evaluate"]
