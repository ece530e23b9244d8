"""Which unlearn rows no training has read: only with those can membership be told from luck."""

from __future__ import annotations

from collections.abc import Sequence

from grail.config.run import Vanilla
from grail.data.samples import Sample, normalised

HELD_OUT = "heldout"
"""The part of the unlearn side that is measured and never trained on."""


def unseen(samples: Sequence[Sample], vanilla: Vanilla) -> frozenset[str]:
    """Return the keys of the rows that the unlearn rows may be compared with.

    These are a domain's held-out rows. Where it has none, its val rows stand in if the vanilla
    model is trained here and without them; those that repeat a train row of any side do not. Of a
    given vanilla model nobody here knows what it has read.
    """
    given = [sample for sample in samples if sample.part == HELD_OUT]
    keys = {sample.key for sample in given}
    if vanilla.include_val or vanilla.skip or vanilla.adapter is not None:
        return frozenset(keys)
    supplied = {sample.domain for sample in given}
    trained = {normalised(sample).row for sample in samples if sample.part == "train"}
    for sample in samples:
        spare = (sample.side, sample.part) == ("unlearn", "val") and sample.domain not in supplied
        if spare and normalised(sample).row not in trained:
            keys.add(sample.key)
    return frozenset(keys)
