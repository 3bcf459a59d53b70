"""The dataset card of a folder of bundles."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from a2r_train.data.unparsable import Unparsable

if TYPE_CHECKING:
    from a2r_train.data.bundle import BundleConfig
    from a2r_train.data.splits import Split

MOST_PATTERNS = 12  # agreement patterns that are listed by name
HEAD = """\
---
task_categories: [text-generation]
tags: [a2r, synthesizer, reference-bundles]
configs:
- config_name: default
  data_files:
  - split: train
    path: {train}
{test}---
# Reference bundles

Each row is one problem with its references in a fixed order, for training or judging a synthesizer (A2R, \
arXiv 2509.22044).
"""


def card(
    config: BundleConfig, train: Split, test: Split, prompt_tokens: np.ndarray, ending: str = ".jsonl"
) -> str:
    """Markdown: counts kept and dropped by reason, shares by number of references, by correct ones and by
    agreement, and prompt lengths.
    """
    of_test = f"  - split: test\n    path: test{ending}\n" if test.count else ""
    head = HEAD.format(train=f"train{ending}", test=of_test)
    mixture = f"`{config.mixture}`"
    if config.mixture == "patterns":
        mixture += f", `pattern_shares: {config.pattern_shares}`"
    if config.contested_only:
        mixture += ", `contested_only` (`skip_agreement: 1` answers the unanimous ones by their vote)"
    parts = [head, f"Rollouts: `{config.rollouts}`. Mixture: {mixture}. Seed: {config.seed}.\n"]
    for name, split in (("train", train), ("test", test)):
        if split.count:
            parts.append(_split_section(name, split))
    if len(prompt_tokens):
        parts.append(_histogram(prompt_tokens))
    return "\n".join(parts)


def _split_section(name: str, split: Split) -> str:
    counts = Counter(split.n_correct.tolist())
    lines = [
        f"## {name}: {split.count} bundles of {split.problems} problems",
        "",
        *_rollout_lines(split),
    ]
    lines += ["| correct references | bundles | share |", "|---|---|---|"]
    lines += [f"| {n} | {counts[n]} | {counts[n] / split.count:.1%} |" for n in sorted(counts)]
    lines += [*_size_lines(split), *_agreement_lines(split)]
    lines += ["", "| dropped because | count |", "|---|---|"]
    lines += [f"| {reason} | {count} |" for reason, count in sorted(split.dropped.items()) if count] or [
        "| nothing | 0 |"
    ]
    return "\n".join(lines) + "\n"


def _size_lines(split: Split) -> list[str]:
    """How many references the bundles have, if that varies."""
    counts = Counter(split.facts.size.tolist())
    if len(counts) < 2:
        return []
    rows = [f"| {size} | {counts[size]} | {counts[size] / split.count:.1%} |" for size in sorted(counts)]
    return ["", "| references | bundles | share |", "|---|---|---|", *rows]


def _agreement_lines(split: Split) -> list[str]:
    """How often the vote is right by agreement pattern, most frequent first. On a tie the first answer wins.

    Empty if no two answers are equal, as with a verifier that has no vote.
    """
    patterns, number, counts = np.unique(
        split.facts.agreement.astype(str), return_inverse=True, return_counts=True
    )
    if not any(set(pattern) - {"1", "-"} for pattern in patterns.tolist()):
        return []
    right = np.bincount(number, weights=split.facts.majority_right, minlength=len(patterns)) / counts
    order = np.argsort(-counts, kind="stable")
    rows = [
        f"| {patterns[at]} | {counts[at]} | {counts[at] / split.count:.1%} | {right[at]:.1%} |"
        for at in order[:MOST_PATTERNS].tolist()
    ]
    if (rest := order[MOST_PATTERNS:]).size:
        many, share = int(counts[rest].sum()), float(right[rest] @ counts[rest]) / int(counts[rest].sum())
        rows.append(f"| {len(rest)} others | {many} | {many / split.count:.1%} | {share:.1%} |")
    return ["", "| equal answers | bundles | share | vote right |", "|---|---|---|---|", *rows]


def _rollout_lines(split: Split) -> list[str]:
    """pass@1 of the split's rollouts, and the share of texts without a readable answer."""
    unread: Unparsable = split.unread
    if not unread.total:
        return []
    right = split.said.right / unread.total
    lines = [f"Of {unread.total} rollouts {right:.1%} are correct, {unread.share:.1%} unparsable."]
    sample = " ".join(unread.sample.replace("`", "'").split())
    return [*lines, *([f"\nOne of these ends in `{sample}`."] if unread.many and sample else []), ""]


def _histogram(lengths: np.ndarray) -> str:
    low = int(lengths.min())
    width = max(1, -(-(int(lengths.max()) - low + 1) // 8))
    bins = np.bincount((lengths - low) // width)
    lines = ["## Length of the synthesizer's prompt, in tokens", "", "| tokens | bundles |", "|---|---|"]
    for at, count in enumerate(bins):
        begin = low + at * width
        lines.append(f"| {begin} to {begin + width - 1} | {count} |")
    return "\n".join(lines) + "\n"
