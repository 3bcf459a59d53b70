"""The dataset card of a folder of bundles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from a2r_train.data.unparsable import unparsable
from a2r_train.records import CORRECT

if TYPE_CHECKING:
    from a2r_train.data.bundle import BundleConfig, Split

HEAD = """\
---
task_categories: [text-generation]
tags: [a2r, synthesizer, reference-bundles]
configs:
- config_name: default
  data_files:
  - split: train
    path: train.jsonl
{test}---
# Reference bundles

Each row is one problem with its references in a fixed order, for training or judging a synthesizer (A2R, \
arXiv 2509.22044).
"""


def card(config: BundleConfig, train: Split, test: Split, prompt_tokens: Sequence[int]) -> str:
    """Markdown with counts kept and dropped by reason, the share by number of correct references, and prompt
    lengths.
    """
    head = HEAD.format(test="  - split: test\n    path: test.jsonl\n" if test.bundles else "")
    parts = [head, f"Rollouts: `{config.rollouts}`. Mixture: `{config.mixture}`. Seed: {config.seed}.\n"]
    for name, split in (("train", train), ("test", test)):
        if split.bundles:
            parts.append(_split_section(name, split))
    if prompt_tokens:
        parts.append(_histogram(prompt_tokens))
    return "\n".join(parts)


def _split_section(name: str, split: Split) -> str:
    counts = Counter(b.n_correct for b in split.bundles)
    lines = [
        f"## {name}: {len(split.bundles)} bundles of {len({b.problem_id for b in split.bundles})} problems",
        "",
        *_rollout_lines(split),
    ]
    lines += ["| correct references | bundles | share |", "|---|---|---|"]
    lines += [f"| {n} | {counts[n]} | {counts[n] / len(split.bundles):.1%} |" for n in sorted(counts)]
    lines += ["", "| dropped because | count |", "|---|---|"]
    lines += [f"| {reason} | {count} |" for reason, count in sorted(split.dropped.items()) if count] or [
        "| nothing | 0 |"
    ]
    return "\n".join(lines) + "\n"


def _rollout_lines(split: Split) -> list[str]:
    """pass@1 of the split's rollouts, and beside it the share of texts that no answer could be read from."""
    if not split.rollouts:
        return []
    unread = unparsable(split.rollouts)
    right = sum(r.verdict == CORRECT for r in split.rollouts) / len(split.rollouts)
    lines = [f"Of {len(split.rollouts)} rollouts {right:.1%} are correct, {unread.share:.1%} unparsable."]
    sample = " ".join(unread.sample.replace("`", "'").split())
    return [*lines, *([f"\nOne of these ends in `{sample}`."] if unread.many and sample else []), ""]


def _histogram(lengths: Sequence[int]) -> str:
    width = max(1, -(-(max(lengths) - min(lengths) + 1) // 8))
    bins = Counter((n - min(lengths)) // width for n in lengths)
    lines = ["## Length of the synthesizer's prompt, in tokens", "", "| tokens | bundles |", "|---|---|"]
    for at in range(max(bins) + 1):
        low = min(lengths) + at * width
        lines.append(f"| {low} to {low + width - 1} | {bins[at]} |")
    return "\n".join(lines) + "\n"
