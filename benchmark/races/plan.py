"""How much is raced: the full benchmark, and one that takes seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """What all parts are told; counts of rows are of both sides together unless said otherwise.

    Attributes:
        device: "cpu" or "cuda".
        data: Folder that holds knowundo_privacy/, or None for the embedded rows.
        model: Who races: a name of ``subjects.SHAPES``.
        precisions: Each race is run in each of them.
        repeats: Rounds of every race.
        scoring: Rows that are scored.
        few: Rows for vmap, which keeps the gradients of all of them at once.
        batch: Unlearn rows of a training step (as many retain rows beside them).
        steps: Steps of a training block; the first is not counted.
        mask_rounds: Rounds of the race of masks, whose differences are small.
        evaluation: Rows that are measured.
        evaluation_repeats: Rounds of that.
        new_tokens: Tokens of a generation at most.
        pipeline: Rows of each side in the pipeline.
        pipeline_repeats: Rounds of the pipeline.
        vanilla_epochs: How long the pipeline's vanilla model is trained at most.
        growth_model: Who shows how cost grows with rows.
        sizes: Rows, to see how cost grows.
        growing: Rows that are made longer, or put into several domains.
        times: By what their length and the number of domains are multiplied.
        shapes: Models of growing size, random weights.
        fresh: Whether processes start with an interpreter of their own (imports count).
        left_out: What this machine is not asked, and why.
    """

    device: str = "cpu"
    data: Path | None = None
    model: str = "smollm2-135m"
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    repeats: int = 3
    scoring: int = 32
    few: int = 4
    batch: int = 4
    steps: int = 4
    mask_rounds: int = 5
    evaluation: int = 32
    evaluation_repeats: int = 2
    new_tokens: int = 96
    pipeline: int = 8
    pipeline_repeats: int = 2
    vanilla_epochs: int = 16
    growth_model: str = "llama-25m"
    sizes: tuple[int, ...] = (100, 400, 1600)
    growing: int = 16
    times: tuple[int, ...] = (1, 2, 4)
    shapes: tuple[str, ...] = ("llama-1m", "llama-6m", "llama-25m")
    fresh: bool = True
    left_out: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """The precision of what is raced in one alone: the first."""
        return self.precisions[0]


QUICK = Plan(
    model="tiny",
    precisions=("float32",),
    repeats=1,
    scoring=4,
    few=2,
    batch=2,
    steps=3,
    mask_rounds=1,
    evaluation=4,
    evaluation_repeats=1,
    new_tokens=6,
    pipeline=2,
    pipeline_repeats=1,
    vanilla_epochs=2,
    growth_model="tiny",
    sizes=(2, 4),
    growing=2,
    times=(1, 2),
    shapes=("tiny",),
    fresh=False,
)
"""Every way of every part once, in seconds: shows that all works; its times say nothing."""

CUDA_SHAPES = ("llama-1b", "llama-7b")


EMULATED = "bfloat16 is left out: this processor only emulates it, and grail takes float32 there"


def make_plan(
    device: str, data: Path | None, quick: bool, rows: int | None, *, bfloat16: bool = True
) -> Plan:
    """Return what the options ask for; ``rows`` shrinks all counts of rows at once.

    Without ``bfloat16``, the processor's own, a CPU is not raced in it.
    """
    plan = replace(QUICK if quick else Plan(), device=device, data=data)
    if device == "cuda" and not quick:
        plan = replace(plan, shapes=CUDA_SHAPES, precisions=("bfloat16", "float32"))
    elif device == "cpu" and not bfloat16 and "bfloat16" in plan.precisions:
        own = tuple(name for name in plan.precisions if name != "bfloat16")
        plan = replace(plan, precisions=own, left_out=(EMULATED,))
    if rows is not None:
        plan = replace(
            plan,
            repeats=1,
            scoring=rows,
            few=min(rows, plan.few),
            steps=3,
            mask_rounds=1,
            evaluation=rows,
            evaluation_repeats=1,
            pipeline=max(1, rows // 2),
            pipeline_repeats=1,
            vanilla_epochs=2,
            sizes=(rows, 2 * rows),
            growing=rows,
        )
    return plan
