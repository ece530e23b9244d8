"""Per-sample gradient statistics in two ways, a plain loop and hooks over a batch: same numbers."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from grail.data.batches import Batch
from grail.importance.hooks import Layout, sample_hooks
from grail.importance.kernel_choice import AddProducts
from grail.importance.sums import Sums
from grail.model.forward import Policy, answer_logits, evaluating, trainable
from grail.model.nll import token_nll
from grail.model.packing import pack, packed_logits, packs

TokenLoss = Callable[[Tensor, Batch], Tensor]
"""(logits of the answer tokens, their batch) -> NLL in nats of each answer token."""


def nll_of_targets(logits: Float[Tensor, "K V"], batch: Batch) -> Float[Tensor, " K"]:
    """Return -log p in nats of the tokens that the batch names as targets."""
    return token_nll(logits, batch.targets[batch.at])


def add_by_loop(
    model: Policy, trials: Sequence[Batch], sums: Sums, loss: TokenLoss = nll_of_targets
) -> None:
    """Add one sample: one backward pass per trial, gradients averaged, then the three statistics.

    ``trials`` are the sample with each trial's labels: batches of one row. Of the model's trainable
    parameters, those of ``sums`` are scored.
    """
    parameters = {name: p for name, p in trainable(model).items() if name in sums.total}
    mean: dict[str, Tensor] = {}
    with evaluating(model):
        for batch in trials:
            logits = answer_logits(model, batch)
            mean_loss = loss(logits, batch).mean() / len(trials)
            gradients = torch.autograd.grad(mean_loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    mean[name] = mean[name] + gradient.float() if name in mean else gradient.float()
    for name, gradient in mean.items():
        sums.add(name, gradient[None])
    sums.samples += 1


def add_by_batch(
    model: Policy,
    batch: Batch,
    trials: int,
    sums: Sums,
    loss: TokenLoss = nll_of_targets,
    kernel: AddProducts | None = None,
) -> None:
    """Add all samples of a batch in one forward and one backward pass.

    The loss is the sum over samples of the mean over trials of the mean token NLL: with any other
    reduction a sample's weight would depend on the rest of its batch. Where the model packs rows,
    the trials of a sample share the prompt.

    The batch has N * ``trials`` rows, the trials of a sample next to each other. ``kernel`` adds
    the gradients of Linear weights without writing them to memory.
    """
    lengths, samples = batch.lengths, range(0, len(batch.rows), trials)
    answers = [sum(lengths[i : i + trials]) for i in samples]
    packed = pack(model, batch.rows, branches=trials) if packs(model, batch.rows) else None
    if packed is None:
        layout = Layout(answers, rows=[trials] * len(samples))
    else:
        layout = Layout(answers, tokens=packed.lengths)
    with evaluating(model), sample_hooks(model, layout, sums, kernel):
        logits = answer_logits(model, batch) if packed is None else packed_logits(model, packed)
        losses = loss(logits, batch)
        tokens = torch.tensor(lengths, device=losses.device)
        weights = torch.repeat_interleave(1.0 / (tokens * trials), tokens)
        (losses * weights).sum().backward()
    sums.samples += len(samples)
