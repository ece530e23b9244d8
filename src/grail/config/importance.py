"""The ``importance`` section: the labels, batches and kernels of Stage 1."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from grail.config.values import Count, Positive, Section, Seed


class Importance(Section):
    """Stage 1: score every entry by its gradients under randomly substituted labels."""

    labels: Literal["random", "true", "expected"] = "random"
    """Labels of the gradients: random tokens (paper), the true completion, or the exact mean over
    infinitely many random trials (needs substitution: targets)."""
    substitution: Literal["inputs_and_targets", "targets", "all"] = "inputs_and_targets"
    """Replaced tokens: half of the completion's positions (drawn with replacement), in the input
    and the target (KnowUnDo) or the target alone; or all positions, in both."""
    trials: Count = 3
    """Random draws per row; read with labels: random only."""
    gradients: Literal["batched", "loop"] = "batched"
    """How gradients per sample are computed: hooks over a batch, or autograd row by row. The
    scores are the same up to rounding."""
    batch_tokens: Count = 2048
    """Upper limit of tokens in a batch, with padding."""
    memory_gib: Positive | None = None
    """Upper limit of the running sums (12 bytes an entry), in GiB. Layers are then scored in
    groups, one pass over the rows for each; the sums are the same. null: no limit."""
    checkpoint_rows: Count = 500
    """Rows of a side, of all processes, between two writings of its running sums (12 bytes an
    entry), from which scoring goes on after an interruption, equal to the bit."""
    kernel: Literal["auto", "bmm", "triton"] = "auto"
    """Kernel for Linear weights: triton never writes the gradients of the samples to memory (CUDA),
    bmm does. auto: bmm, until triton has been timed on a GPU."""
    seed: Seed | None = None
    """Seed of the labels. A number lets runs share scores. null: the run's."""

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
