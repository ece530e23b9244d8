"""What each stage holds in memory beside weights and activations, counted from what the code does.

``grail plan`` adds it to what it measures, ``grail plan --shape`` to what it counts.
"""

import math
from dataclasses import dataclass

from grail.config.run import Config
from grail.config.teach import Teach
from grail.run.forecast.cost import FLOAT, Shape
from grail.run.forecast.work import step_rows
from grail.run.inputs import knows_before
from grail.training.freezing import WORTH
from grail.training.optimizer import ENTRYWISE
from grail.unlearning.objectives import EXACT, make_objective

_MOMENTS = {"sgd": 1, "adamw": 2, "adafactor": 0}
"""Numbers that an optimiser keeps of each entry; Adafactor keeps one of each row and column."""

_RANKING = FLOAT + 16
"""Bytes for each entry of a layer while its top entries are chosen: the layer in a row, and what
torch.topk sorts (a float32 and its index, 16 bytes in memory)."""

_CHOSEN = FLOAT + 8
"""The same for each chosen entry: its value and its index."""


@dataclass(frozen=True)
class Held:
    """What a training holds, in bytes, of a model that one process has whole.

    Attributes:
        rows: Rows that go through the model at once.
        state: From step to step: moments, float32 copies, the direction, the best weights.
        marks: The mask, a byte for each entry; three times where the sides skip different ones.
        reference: Weights of the model before Stage 3, where a term compares with it.
        teacher: Weights of the model before the teaching, where that is distilled from.
        earlier: Gradients that are there already when a pass over rows begins.
        gradients: The most of the gradients, when the activations are gone.
        start: The weights at the start, in the memory of the machine: the proof reads them.
    """

    rows: int
    state: int
    marks: int
    reference: int
    teacher: int
    earlier: int
    gradients: int
    start: int

    @property
    def kept(self) -> int:
        """All that is there from step to step on the device, the reference left out."""
        return self.state + self.marks + self.teacher


def trainings(config: Config, shape: Shape, frozen: float) -> dict[str, Held]:
    """Return what the trainings of a run hold, by stage; the mask freezes a share of the entries.

    ``frozen`` is that share (0-1). A run that teaches nothing has no "vanilla" here.
    """
    settings, teach = config.unlearning, config.teach or Teach()
    state, gradients = state_bytes(shape, "adamw", None)
    taught = Held(teach.batch_size, state, 0, 0, 0, 0, gradients, 0)
    found = {"vanilla": taught} if config.teaches else {}
    by_side = config.localization.freeze == "by_side"
    marks = shape.trainable * (3 if by_side else 1)
    start = shape.trainable_bytes
    if settings.objective == EXACT:  # taught once more, with a mask
        state, gradients = state_bytes(shape, "adamw", frozen)
        again = Held(teach.batch_size, state, marks, 0, 0, 0, gradients, start)
        return found | {"unlearn": again}
    rows, split = step_rows(settings), by_side or settings.rectify
    unlearn, others = rows.get("unlearn", 0), sum(rows.values()) - rows.get("unlearn", 0)
    together = max(unlearn, others) if split else unlearn + others
    objective = make_objective(settings)
    compared = any(objective.compares(side) for side in objective.sides)
    taught_by = settings.objective == "distill" and knows_before(config)
    state, gradients = state_bytes(
        shape, settings.optimizer, frozen, by_side=by_side, rectify=settings.rectify
    )
    entries, _ = _masters(shape, settings.optimizer, frozen)
    state += int(entries) * (settings.rectify + (settings.stop is not None))
    earlier = int(entries) * split  # of the side that went first
    earlier += shape.trainable_bytes * (settings.accumulation > 1)
    return found | {
        "unlearn": Held(
            math.ceil(together / settings.accumulation),
            *(state, marks, compared * start, taught_by * start, earlier, gradients, start),
        )
    }


def state_bytes(
    shape: Shape,
    optimizer: str,
    frozen: float | None,
    by_side: bool = False,
    rectify: bool = False,
) -> tuple[int, int]:
    """Return a training's moments and float32 copies, and the most of its gradients, in bytes.

    The mask freezes a share ``frozen`` of every tensor (0-1); None: there is no mask. Gradients are
    at most: those of a pass and their masked copies; of ``by_side``, both sides' and their sum;
    with ``rectify`` both sides', the masked direction, the corrected one and the sum.
    """
    entries, vectors = _masters(shape, optimizer, frozen)
    copies = vectors or shape.master_bytes > shape.trainable_bytes
    masked = frozen is not None and (by_side or not vectors)  # a copy with zeros in it
    together = 4 + masked if rectify else 3 if by_side else 1 + masked
    return int(entries * (_MOMENTS[optimizer] + copies)), int(entries * together)


def _masters(shape: Shape, optimizer: str, frozen: float | None) -> tuple[float, bool]:
    """Return the bytes of what the optimiser moves, and whether these are the free entries."""
    vectors = optimizer in ENTRYWISE and frozen is not None and frozen >= WORTH
    return shape.master_bytes * (1 - (frozen or 0.0) if vectors else 1), vectors


def set_bytes(config: Config, shape: Shape) -> int:
    """Return the most that Stage 2 holds in the memory of the machine.

    That is a byte for each entry of two top sets of each side, of the two overlaps, of what is kept
    of them and of the mask; and what chooses the top of the largest layer. Scores are read tensor
    by tensor, but standardised ones (z_mean) are made for a whole side; memflex holds gradients of
    both sides in float64 before there are any sets, magnitude the weights.
    """
    settings, entries = config.localization, shape.trainable
    top = max(settings.k_op_ur, settings.k_op_rr)
    sets = (4 * len(config.domains) + 5) * entries
    sets += int((_RANKING + _CHOSEN * top) * shape.layers[settings.layer])
    sets += FLOAT * entries * (settings.statistic == "z_mean")
    sets += shape.trainable_bytes * (settings.method == "magnitude")
    return max(sets, 2 * 8 * entries * (settings.method == "memflex"))
