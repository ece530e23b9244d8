"""What two processes do with a model in parts (FSDP2): ``check`` or ``run`` in each of them.

The test compares what is written into the folder with what one process does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import tiny
import two_processes
from accelerate import Accelerator
from safetensors.torch import save_file

from grail.cli.main import main
from grail.data.labels import RandomLabels
from grail.importance.score import Scorer
from grail.model.forward import trainable
from grail.model.sharded import shard, whole_of
from grail.training.accelerator import make_accelerator
from grail.training.freezing import Freezing

TRAININGS = {"static": 0, "by_side": 3, "adamw": 0, "rectified": 3, "phases": 0, "single": 0}
"""Those of two_processes -> the step at which each is interrupted, to be resumed."""


def scores_of(lora, process, prepare=lambda _: None, double=False):
    """Return the statistics of a tiny model on five rows in batches of different sizes."""
    model = tiny.tiny_model(lora=lora, tied=not lora)
    model = model.double() if double else model
    prepare(model)
    labels = RandomLabels(tuple(range(3, 96)), "random", 0)
    scorer = Scorer(model, labels, 0, trials=2, batch_tokens=40, process=process)
    found, like = scorer.score(tiny.tiny_rows(5)), trainable(model)
    return {
        f"{n}.{s}": whole_of(value, like[n]).contiguous()
        for s in ("mean_abs", "mean", "mean_sq")
        for n, value in getattr(found, s).items()
    }


def unmasked(accelerator, folder):
    """Train with the mask left out in the second process; return what both say of it."""
    real = Freezing.masked

    def masked(self, gradients, side):
        return gradients if accelerator.process_index else real(self, gradients, side)

    Freezing.masked = masked
    try:
        two_processes.train("static", folder, accelerator, prepare=shard)
    except RuntimeError as error:
        return str(error)
    finally:
        Freezing.masked = real
    return "nothing"


def handed_over(accelerator, folder):
    """Interrupt a training and leave its checkpoint for one process to go on from."""

    def stop(done, total, note):
        if done == 3:  # the checkpoint of step 2 is written
            raise two_processes.StoppedError

    try:
        two_processes.train("by_side", folder, accelerator, prepare=shard, tick=stop)
    except two_processes.StoppedError:
        accelerator.wait_for_everyone()


def check(folder):
    accelerator: Accelerator = make_accelerator()
    rank, process = accelerator.process_index, (accelerator.process_index, 2)
    proofs = {}
    for name, stop in TRAININGS.items():
        after, _, _, proofs[name] = two_processes.train(name, folder, accelerator, stop, shard)
        save_file(after, folder / f"{name}.{rank}.safetensors")
    for lora in (True, False):
        for double in (True, False):
            kind = f"{'lora' if lora else 'full'}.{'double' if double else 'single'}"
            parts = scores_of(lora, process, shard, double)
            copies = scores_of(lora, process, double=double)
            save_file(parts, folder / f"scores.parts.{kind}.{rank}.safetensors")
            save_file(copies, folder / f"scores.copies.{kind}.{rank}.safetensors")
    (folder / "left").mkdir(exist_ok=True)
    said = unmasked(accelerator, folder / "left")
    (folder / "over").mkdir(exist_ok=True)
    handed_over(accelerator, folder / "over")
    facts = {"proofs": proofs, "unmasked": said}
    (folder / f"facts.{rank}.json").write_text(json.dumps(facts))


def run(folder):
    """Do the runs that ``FOLDER/runs.json`` lists: whether FSDP2 is asked for, and the words."""
    Accelerator.end_training = lambda _: None  # it would end the group of processes
    for fsdp, *words in json.loads((folder / "runs.json").read_text()):
        os.environ |= {"ACCELERATE_USE_FSDP": str(fsdp).lower(), "FSDP_VERSION": "2"}
        if code := main(words):
            sys.exit(code)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
