"""The ``importance`` section: what Stage 1 differentiates, how often, and within which memory."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from grail.config.values import Count, Positive, Section, Seed


class Importance(Section):
    """Stage 1: gradients with randomly substituted labels.

    ``labels: expected`` is the limit of infinitely many trials, in one pass and without a draw. It
    exists where the model reads the true tokens in every trial: ``substitution: targets``. With it
    and with ``true``, ``trials`` does not matter.
    ``memory_gib`` bounds the running sums (12 bytes an entry) beside the model: the layers are then
    scored in groups, one pass over the rows for each; the sums are the same bit for bit.
    ``kernel: triton`` sums the gradients of Linear weights without writing them (CUDA); ``bmm``
    uses batched products. ``auto`` means ``bmm`` until the kernel's speed was measured on a GPU.
    ``seed`` is that of the labels; null takes the run's, a number lets runs share their scores.
    """

    labels: Literal["random", "true", "expected"] = "random"
    substitution: Literal["inputs_and_targets", "targets", "all"] = "inputs_and_targets"
    trials: Count = 3
    gradients: Literal["batched", "loop"] = "batched"
    batch_tokens: Count = 2048
    memory_gib: Positive | None = None
    kernel: Literal["auto", "bmm", "triton"] = "auto"
    seed: Seed | None = None

    @model_validator(mode="after")
    def _closed_form(self) -> Importance:
        if self.labels == "expected" and self.substitution != "targets":
            raise ValueError(
                "labels: expected has a closed form for substitution: targets only, got "
                f"{self.substitution} (what the model reads would differ from trial to trial). "
                "Set substitution: targets, or labels: random"
            )
        return self

    @model_validator(mode="after")
    def _kernel_of_batches(self) -> Importance:
        if self.kernel == "triton" and self.gradients == "loop":
            raise ValueError(
                "kernel: triton is for gradients: batched; the loop uses autograd alone. "
                "Set kernel: auto, or gradients: batched"
            )
        return self
