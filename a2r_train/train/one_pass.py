"""GRPO with vLLM without the pass for the old log-probabilities, where it would compute the update's own.

TRL computes the trainer's log-probabilities of what vLLM drew in a pass of its own before the update, to
weigh each token by the ratio of trainer to engine. If a generation lasts for one optimizer step at most, the
weights have not moved when the update computes the same log-probabilities. So the ratio is taken from those.
The arithmetic is TRL's; a test compares the trained weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from a2r_train.train.lean import LeanGRPOTrainer


class OnePassGRPOTrainer(LeanGRPOTrainer):
    """TRL's, with two methods overridden: one leaves the pass out, the other fills the ratio in."""

    @property
    def _leaves_out(self) -> bool:
        args: Any = self.args
        every = args.steps_per_generation * self.num_iterations
        return bool(self.use_vllm) and args.gradient_accumulation_steps % every == 0

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        asked = self.vllm_importance_sampling_correction
        self.vllm_importance_sampling_correction = asked and not self._leaves_out
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self.vllm_importance_sampling_correction = asked

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        """TRL reads the ratio of the micro-batch after it has computed the log-probabilities."""
        if not self.vllm_importance_sampling_correction or not self._leaves_out:
            return super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        compute = self._get_per_token_logps_and_entropies

        def computed(*args: Any, **kwargs: Any) -> Any:
            found = compute(*args, **kwargs)
            inputs["importance_sampling_ratio"] = self._ratio(found[0].detach(), inputs)
            return found

        self._get_per_token_logps_and_entropies = computed  # type: ignore[method-assign]
        try:
            return super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        finally:
            del self._get_per_token_logps_and_entropies

    def _ratio(self, logps: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """(B, C) of token modes, (B, 1) of sequence modes; logged under TRL's names, by micro-batch."""
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        difference = logps - inputs["sampling_per_token_logps"]
        mode = self.vllm_importance_sampling_mode
        ratio = importance_ratio(
            (difference * mask).nan_to_num(nan=0.0),
            mode,
            self.vllm_importance_sampling_clip_min,
            self.vllm_importance_sampling_clip_max,
        )
        seen = mask.bool()
        self._log_sampling("sampling_logp_difference", difference.abs()[seen & ~difference.isnan()])
        self._log_sampling(
            "importance_sampling_ratio", ratio.flatten() if mode.startswith("sequence") else ratio[seen]
        )
        return ratio

    def _log_sampling(self, name: str, values: torch.Tensor) -> None:
        """Over all processes; 0 where nothing was drawn, as in TRL."""
        values = values if values.numel() else values.new_zeros(1)
        found = self.accelerator.gather(torch.stack((values.min(), values.mean(), values.max()))[None])
        kinds = {"min": found[:, 0].min(), "mean": found[:, 1].mean(), "max": found[:, 2].max()}
        if name == "sampling_logp_difference":
            del kinds["min"]  # TRL does not log it
        metrics = self._metrics["train" if self.model.training else "eval"]  # type: ignore[union-attr]
        for kind, value in kinds.items():
            metrics[f"sampling/{name}/{kind}"].append(value.item())


def importance_ratio(
    difference: torch.Tensor, mode: str, least: float | None, most: float | None
) -> torch.Tensor:
    """TRL's weight of each token (B, C), or of each completion (B, 1).

    `difference` (B, C) is the trainer's log-probability less the engine's, 0 where nothing counts, and `mode`
    is `vllm_importance_sampling_mode`.
    """
    if mode.startswith("sequence"):
        difference = difference.sum(-1, keepdim=True)
    ratio = difference.exp()
    if mode.endswith("truncate"):
        return ratio.clamp(least, most)
    low, high = (-math.inf if least is None else least), (math.inf if most is None else most)
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)
