"""Small trainings that give the same weights in one process and in two.

Two processes call ``main``; the test calls ``train`` in its own process, too.
"""

from __future__ import annotations

import dataclasses
import json

import tiny
import torch
from safetensors.torch import save_file

from grail.artifacts import Mask
from grail.config.unlearning import Unlearning, Until
from grail.data.samples import Sample
from grail.model.forward import trainable
from grail.model.sharded import part, whole_of
from grail.model.weights import copy_weights
from grail.run.trainings import loop_settings, schedule_of
from grail.training.accelerator import make_accelerator
from grail.training.loop import Loop, LoopFiles
from grail.unlearning.objectives import make_objective
from grail.unlearning.task import UnlearnTask

SHARED = {
    "learning_rate": 0.02,
    "epochs": 2,
    "max_token_nll": 12.0,
    "until": Until(row_accuracy=None, domain_accuracy=0.0),
}
RUNS = {
    "static": {"optimizer": "sgd", "batch_size": 3, "weight_decay": 0.1, "max_grad_norm": 0.5},
    "by_side": {"optimizer": "sgd", "batch_size": 4, "accumulation": 2, "checkpoint_steps": 2},
    "adamw": {"optimizer": "adamw", "batch_size": 4, "weight_decay": 0.1},
    "rectified": {"optimizer": "sgd", "batch_size": 4, "rectify": True, "checkpoint_steps": 2},
    "phases": {
        "optimizer": "sgd",
        "objective": "npo",  # it has no bound
        "max_token_nll": None,
        "until": Until(row_accuracy=None),
        "batch_size": 2,
        "phases": [["b"], ["a"]],
    },
    "single": {"optimizer": "sgd", "objective": "ascent", "batch_size": 1, "accumulation": 2},
}
"""In ``single`` a step has one row, so that the second process has none."""


class StoppedError(Exception):
    pass


def make_mask(parameters, by_side):
    """Random halves; with sides, what is frozen is frozen for both."""
    generator = torch.Generator().manual_seed(1)

    def draw():
        return {n: torch.rand(p.shape, generator=generator) < 0.5 for n, p in parameters.items()}

    if not by_side:
        return Mask(draw())
    unlearn, retain = draw(), draw()
    return Mask({n: unlearn[n] & retain[n] for n in unlearn}, unlearn, retain)


def make_rows():
    return tuple(
        dataclasses.replace(row, sample=Sample(d, s, "train", i, "", ""))
        for i, (row, (d, s)) in enumerate(
            zip(
                tiny.tiny_rows(16),
                [(d, s) for s in ("unlearn", "retain") for d in "ab"] * 4,
                strict=True,
            )
        )
    )


def train(name, folder, accelerator, stop=0, prepare=lambda _: None, tick=lambda *_: None):
    """Do one of RUNS, interrupted at step ``stop`` and resumed; ``prepare`` changes the model.

    Returns the trained weights, the weights before, the mask, and the loop's proof of freezing.
    """
    settings = Unlearning(**(SHARED | RUNS[name]))

    def go(tick):
        model = tiny.tiny_model()
        prepare(model)
        parameters = trainable(model)
        mask = make_mask(parameters, name == "by_side")
        before = {n: whole_of(part(p).detach().clone(), p) for n, p in parameters.items()}
        objective = make_objective(settings)
        split = mask.by_side or settings.rectify
        reference = copy_weights(model) if objective.compares("unlearn") else None
        schedule = schedule_of(settings)
        task = UnlearnTask(model, make_rows(), objective, 0, schedule, 0, split, reference)
        loop = Loop(parameters, task, mask, loop_settings(settings, 0), accelerator)
        place = LoopFiles(folder / f"{name}.log", folder / f"{name}.checkpoint", "x")
        proof = loop.run(place, tick)
        after = {n: whole_of(part(p).detach().clone(), p) for n, p in parameters.items()}
        return after, before, mask, proof

    def interrupt(done, total, note):
        if done == stop:
            raise StoppedError

    if stop:
        try:
            go(interrupt)
        except StoppedError:
            accelerator.wait_for_everyone()
        else:
            raise RuntimeError("the run was not interrupted")
    return go(tick)


def main(folder):
    accelerator = make_accelerator()
    for name in RUNS:
        stop = 3 if name in ("by_side", "rectified") else 0
        after, before, mask, proof = train(name, folder, accelerator, stop)
        rank = accelerator.process_index
        save_file(after, folder / f"{name}.{rank}.safetensors")
        same = all(
            torch.equal(after[n].view(torch.int32)[bits], before[n].view(torch.int32)[bits])
            for n, bits in mask.frozen.items()
        )
        facts = {"frozen": same, "processes": accelerator.num_processes, "proof": proof}
        (folder / f"{name}.{rank}.json").write_text(json.dumps(facts))
