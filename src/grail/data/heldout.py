"""Which unlearn rows no training has read: the non-members of the membership test."""

from collections.abc import Sequence

from grail.config.teach import Teach
from grail.data.samples import Sample, normalised

HELD_OUT = "heldout"
"""The part of the unlearn side that is evaluated and never trained on."""


def unseen(samples: Sequence[Sample], teach: Teach | None) -> frozenset[str]:
    """Return the keys of unlearn rows that the vanilla model has not been trained on.

    These are a domain's held-out rows. A domain without held-out rows uses its val rows, except
    those that repeat a train row of any side. It does so only if the vanilla model is taught in
    this run and without val rows: it is not known which rows another vanilla model has read.
    """
    held_out = [sample for sample in samples if sample.part == HELD_OUT]
    keys = {sample.key for sample in held_out}
    if teach is None or teach.include_val or teach.adapter is not None:
        return frozenset(keys)
    domains = {sample.domain for sample in held_out}
    trained = {normalised(sample).row for sample in samples if sample.part == "train"}
    for sample in samples:
        is_val = (sample.side, sample.part) == ("unlearn", "val") and sample.domain not in domains
        if is_val and normalised(sample).row not in trained:
            keys.add(sample.key)
    return frozenset(keys)
