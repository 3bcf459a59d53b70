"""GRPO with vLLM that skips the pass for the old log-probabilities where the update would compute the same
ones.

Before the update TRL runs a separate pass to compute the trainer's log-probabilities of what vLLM sampled, to
weight each token by the ratio of trainer to engine. If a generation lasts for at most one optimizer step, the
weights have not changed when the update computes the same log-probabilities, so the ratio is taken from
those. The arithmetic is TRL's; a test compares the trained weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from a2r_train.train.lean import LeanGRPOTrainer


class OnePassGRPOTrainer(LeanGRPOTrainer):
    """TRL's trainer, with two methods overridden: one skips the pass, the other fills in the ratio."""

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
        """(B, C) in token modes, (B, 1) in sequence modes; logged under TRL's names, per micro-batch."""
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        difference = logps - inputs["sampling_per_token_logps"]
        mode = self.vllm_importance_sampling_mode
        ratio = importance_ratio(
            (difference * mask).nan_to_num(nan=0.0),
            mode,
            self.vllm_importance_sampling_clip_min,
            self.vllm_importance_sampling_clip_max,
        )
        drawn = mask.bool()
        counted = torch.ones_like(ratio, dtype=torch.bool) if mode.startswith("sequence") else drawn
        self._log_sampling(
            {
                "sampling_logp_difference": spread(difference.abs(), drawn & ~difference.isnan()),
                "importance_sampling_ratio": spread(ratio, counted),
            }
        )
        return ratio

    def _log_sampling(self, spreads: dict[str, torch.Tensor]) -> None:
        """Log over all processes. This runs for each micro-batch, so the host waits for the GPU only once."""
        found = self.accelerator.gather(torch.stack([*spreads.values()])[None])  # (processes, names, 3)
        least, mean, most = found[..., 0].amin(0), found[..., 1].mean(0), found[..., 2].amax(0)
        metrics = self._metrics["train" if self.model.training else "eval"]  # type: ignore[union-attr]
        for name, values in zip(spreads, torch.stack((least, mean, most), 1).tolist(), strict=True):
            for kind, value in zip(("min", "mean", "max"), values, strict=True):
                if (name, kind) != ("sampling_logp_difference", "min"):  # TRL does not log it
                    metrics[f"sampling/{name}/{kind}"].append(value)


def spread(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """(3,): minimum, mean and maximum of the values that count; 0 if none does, as in TRL."""
    least = values.masked_fill(~counted, math.inf).amin()
    most = values.masked_fill(~counted, -math.inf).amax()
    mean = values.masked_fill(~counted, 0.0).sum() / counted.sum().clamp(min=1)
    return torch.where(counted.any(), torch.stack((least, mean, most)), values.new_zeros(()))


def importance_ratio(
    difference: torch.Tensor, mode: str, least: float | None, most: float | None
) -> torch.Tensor:
    """TRL's weight of each token (B, C), or of each completion (B, 1).

    `difference` (B, C) is the trainer's log-probability minus the engine's, 0 where masked, and `mode` is
    `vllm_importance_sampling_mode`.
    """
    if mode.startswith("sequence"):
        difference = difference.sum(-1, keepdim=True)
    ratio = difference.exp()
    if mode.endswith("truncate"):
        return ratio.clamp(least, most)
    low, high = (-math.inf if least is None else least), (math.inf if most is None else most)
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)
