"""Select the top of shards in as many processes as are started; each writes its marks.

Its ``main`` runs in each of two processes (``torchrun``), the rest in the test's own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as group
from safetensors.torch import save_file

from grail.errors import InputError
from grail.localization.radix import distributed
from grail.localization.select import top_per_layer

KS = (0.1, 0.35)


def make_scores():
    """Two blocks and a tensor of its own; few distinct values, so that ties cross every border."""
    generator = torch.Generator().manual_seed(3)
    names = [f"layers.{i}.{kind}" for i in range(2) for kind in ("a", "b", "c")] + ["embed"]
    shapes = [(7, 11), (5,), (0,), (64, 3), (40, 50), (1, 1), (33, 9)]
    values = [
        torch.randint(0, 9, shape, generator=generator).float() * 1e-41 for shape in shapes
    ]  # denormals
    values[1] = torch.rand(5, generator=generator)
    return dict(zip(names, values, strict=True))


def runs_of_the_flat_order(scores, rank):
    """All of the earlier names in process 0; the name on the border is cut in two."""
    names = sorted(scores)
    cut = {name: scores[name].numel() for name in names[:5]} | {names[5]: 700}
    parts = {n: scores[n].flatten().tensor_split([cut.get(n, 0)]) for n in names}
    return {name: part[rank] for name, part in parts.items()}


def cut_rows(scores, rank):
    """Each tensor's first rows in process 0, the others in process 1."""
    return {name: value.tensor_split([value.shape[0] // 3])[rank] for name, value in scores.items()}


CUTS = {"runs": runs_of_the_flat_order, "rows": cut_rows}


def main(folder):
    folder = Path(folder)
    group.init_process_group("gloo")
    rank = group.get_rank()
    scores = make_scores()
    marks = {
        f"{cut}.{k}.{layer}.{name}": value
        for cut, part in CUTS.items()
        for k in KS
        for layer in ("block", "tensor", "model")
        for name, value in top_per_layer(part(scores, rank), k, layer, distributed()).items()
    }
    save_file(marks, folder / f"{rank}.safetensors")
    refused = []
    for bad in (float("nan"), float("inf")):  # only process 1 holds it
        own = {"a": torch.tensor([1.0, bad] if rank else [1.0, 2.0])}
        try:
            top_per_layer(own, 0.5, "model", distributed())
        except InputError as error:
            refused.append(str(error))
    (folder / f"{rank}.json").write_text(json.dumps(refused))
    group.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
