"""What training takes at its peak: frozen entries, checkpointing, NF4; and whether it was planned.

Usage: python benchmark/step_memory.py [--only NAME ...]

Two steps of AdamW on a random Llama, each case in a process of its own. Measured is what the
process holds at most while it trains; planned is what ``grail plan --shape`` counts for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import write

SHAPE: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12}
ROWS, LENGTH, ANSWER = 8, 128, 64
FULL, ADAPTER = {"lora": None, "dtype": "float32"}, {"dtype": "bfloat16"}
AGAIN = {"gradient_checkpointing": True}
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "all weights": (FULL, 0.0),
    "all weights, 85 % frozen": (FULL, 0.85),
    "all weights, checkpointing": (FULL | AGAIN, 0.0),
    "all weights, 85 % frozen, checkpointing": (FULL | AGAIN, 0.85),
    "all weights in bfloat16, 85 % frozen": ({"lora": None, "dtype": "bfloat16"}, 0.85),
    "adapter on bfloat16": (ADAPTER, 0.0),
    "adapter on bfloat16, checkpointing": (ADAPTER | AGAIN, 0.0),
    "adapter on NF4, checkpointing": (ADAPTER | AGAIN | {"quantise": "nf4"}, 0.0),
}
"""Name -> keys of the ``model`` section, and the share of entries that a random mask freezes."""
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc gives freed tensors back at once: the peak is of what is in use, not of gaps between."""


def main() -> None:
    """Measure each case in a child process and write results/step_memory.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--child", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(case(options.child[0], Path(options.child[1]))))
        return
    found = []
    with tempfile.TemporaryDirectory() as name:
        make_model(Path(name))
        for each in options.only:
            command = [sys.executable, __file__, "--child", each, name]
            child = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | RETURNED
            )
            found.append({"case": each, **json.loads(child.stdout.splitlines()[-1])})
            print(found[-1], flush=True)
    ratios = {row["case"]: round(row["measured"] / row["planned"], 3) for row in found}
    settings = {"shape": SHAPE, "rows": ROWS, "tokens": LENGTH}
    print(f"wrote {write('step_memory', settings, found, ratios)}")


def make_model(folder: Path) -> None:
    """Write a random Llama without a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, num_attention_heads=8, vocab_size=8192, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)


def planned_bytes(folder: Path, settings: Any, share: float) -> float:
    """Return what the plan counts: weights, training, the proof's copy and mask, activations."""
    from grail.run.forecast.cost import shape_of
    from grail.run.forecast.holds import state_bytes
    from grail.run.forecast.memory import LIBRARIES, weight_bytes
    from grail.run.forecast.shapes import shaped, traced

    model = shaped(str(folder), settings)
    shape, step = shape_of(model), traced(model, ROWS, LENGTH, ANSWER)
    held, gradients = state_bytes(shape, "adamw", share)
    most = max(step.most(shape.trainable_bytes, settings.gradient_checkpointing), gradients)
    proof = shape.trainable_bytes + shape.trainable  # the weights at the start, and the mask
    return LIBRARIES + weight_bytes(model, settings.quantise) + held + most + proof


def case(name: str, folder: Path) -> dict[str, float]:
    """Train two steps; return the measured and the planned MiB."""
    import torch

    from grail.artifacts import Mask
    from grail.config.run import Model
    from grail.model.forward import trainable
    from grail.model.load import load_model
    from grail.training.accelerator import make_accelerator
    from grail.training.descent import DescentTask
    from grail.training.loop import Loop, LoopFiles
    from grail.training.optimizer import LoopSettings

    given, share = CASES[name]
    settings = Model(name=str(folder), **given)
    planned = planned_bytes(folder, settings, share) / 2**20
    model = load_model(settings, None, 0).train()
    weights, rows = trainable(model), drawn_rows()
    mask = Mask({name: torch.rand(p.shape) < share for name, p in weights.items()})
    task = DescentTask(model, rows, 0, batch_size=ROWS)
    loop = Loop(weights, task, mask, LoopSettings(1e-5, 2, 0), make_accelerator())
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is now's
    with tempfile.TemporaryDirectory() as place:
        loop.run(LoopFiles(Path(place) / "log", Path(place) / "checkpoint", ""))
    return {"measured": resident("VmHWM"), "planned": planned}


def drawn_rows() -> tuple[Any, ...]:
    """Return rows of random tokens."""
    import torch

    from grail.data.encode import Encoded
    from grail.data.samples import Sample

    ids = torch.randint(3, 8192, (ROWS, LENGTH)).tolist()
    samples = (Sample("d", "unlearn", "train", number, "", "") for number in range(ROWS))
    pairs = zip(samples, ids, strict=True)
    return tuple(Encoded(sample, tuple(row), LENGTH - ANSWER) for sample, row in pairs)


def resident(key: str) -> float:
    """Return a line of the process's status in MiB: VmHWM is the peak of its memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


if __name__ == "__main__":
    main()
