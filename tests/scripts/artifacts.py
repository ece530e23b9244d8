"""Write one file of each kind, made from sets and dictionaries, into a folder."""

from pathlib import Path

import torch

from grail.artifacts import Mask, Scores, write_mask, write_scores


def main(folder):
    folder = Path(folder)
    p, q, r = ({n: torch.arange(9.0).reshape(3, 3) for n in set("zyxa")} for _ in range(3))
    write_scores(folder / "scores.safetensors", Scores(p, q, r, 5), "digest")
    bits = {n: t > 3 for n, t in p.items()}
    about = {"freeze": "by_side", **{f"key{i}": {"b": i, "a": "é"} for i in range(8)}}
    write_mask(folder / "mask.safetensors", Mask(bits, bits, bits, about), "digest")
