"""Ascent and descent with transformers' Trainer, as frameworks for unlearning have it.

A dataset pairs an unlearn row with a retain row; each side is padded to its longest row and goes
through the model by itself, with all logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from grail.config.run import Unlearning
from grail.data.batches import IGNORED
from grail.data.encode import Encoded
from grail.model.forward import Policy, trainable
from races import naive
from races.clock import now

Pair = dict[str, Encoded]


@dataclass
class Steps:
    """What a block of training steps did.

    Attributes:
        seconds: From the end of a step to the end of the next: the first step is not counted.
        nll: Side -> its mean NLL at every step, before the step.
    """

    seconds: list[float]
    nll: dict[str, list[float]]


@dataclass
class Watch(TrainerCallback):
    """When each step ended."""

    ends: list[float] = field(default_factory=list)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Take the time."""
        self.ends.append(now())


class Pairs(Dataset):  # type: ignore[type-arg]
    """Unlearn rows with the retain rows that stand beside them."""

    def __init__(self, steps: Sequence[Sequence[Encoded]]) -> None:
        self.pairs: list[Pair] = []
        for step in steps:
            own = [row for row in step if row.side == "unlearn"]
            kept = [row for row in step if row.side == "retain"]
            pairs = zip(own, kept, strict=True)
            self.pairs += [{"unlearn": a, "retain": b} for a, b in pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]


class AscentDescent(Trainer):
    """Minimises -unlearn_weight * NLL of the unlearn rows + retain_weight * NLL of the others.

    The NLL is grail's: the mean over tokens of a row, then over rows. transformers would take the
    mean over all tokens of the batch; then the losses could not be compared.
    """

    weights: Mapping[str, float]
    seen: dict[str, list[Tensor]]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Run the two sides one after the other and weigh their NLL."""
        del num_items_in_batch
        loss, outputs = torch.zeros(()), None
        for side, weight in self.weights.items():
            batch = inputs[side]
            outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            nll = row_means(outputs.logits, batch["labels"]).mean()
            self.seen[side].append(nll.detach())
            loss = loss.to(nll) + weight * nll
        return (loss, outputs) if return_outputs else loss


def row_means(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean NLL of each row's labelled tokens (B).

    Line by line, as transformers does it: with the vocabulary on the second axis a CPU adds up its
    49152 probabilities one after the other, and the NLL is 1e-4 off in float32.
    """
    targets = labels[:, 1:]
    lines, goals = logits[:, :-1].float().flatten(0, 1), targets.flatten()
    nll = nn.functional.cross_entropy(lines, goals, ignore_index=IGNORED, reduction="none")
    return nll.view_as(targets).sum(1) / (targets != IGNORED).sum(1)


def train(
    model: Policy,
    steps: Sequence[Sequence[Encoded]],
    settings: Unlearning,
    pad: int,
    folder: Path,
) -> Steps:
    """Train on the rows of ``steps`` in their order, once; return what each step saw."""
    watch, cuda = Watch(), next(model.parameters()).is_cuda
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm or 0.0,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=not cuda,
    )
    trainer = AscentDescent(
        model=model,  # type: ignore[arg-type]
        args=arguments,
        train_dataset=Pairs(steps),
        data_collator=lambda pairs: _sides(pairs, pad),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.weights = {"unlearn": -settings.unlearn_weight, "retain": settings.retain_weight}
    trainer.seen = {"unlearn": [], "retain": []}
    trainer.train()
    seconds = [later - sooner for sooner, later in zip(watch.ends, watch.ends[1:], strict=False)]
    return Steps(seconds, {side: [float(v) for v in seen] for side, seen in trainer.seen.items()})


def freeze(model: Policy, frozen: Mapping[str, Tensor]) -> list[Any]:
    """Let gradients of frozen entries be 0; returns handles whose ``remove`` ends it."""

    def keep(parameter: nn.Parameter, bits: Tensor) -> Any:
        free = ~bits.to(parameter.device)
        return parameter.register_hook(lambda gradient: gradient * free)

    return [keep(p, frozen[name]) for name, p in trainable(model).items() if name in frozen]


def _sides(pairs: Sequence[Pair], pad: int) -> dict[str, dict[str, Tensor]]:
    return {side: naive.padded([p[side] for p in pairs], pad) for side in ("unlearn", "retain")}
