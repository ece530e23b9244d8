"""The memory that ``grail plan --shape`` counts against the peaks of real runs.

Usage: python benchmark/fits.py [--only NAME ...]

Random Llama models with the packaged model's tokenizer run on a few of the embedded rows, each in a
process of its own. Its peak is compared with what was planned from the model's config.json alone.
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

WIDTH = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16}
RUNS: dict[str, list[str]] = {
    "adapter": [],
    "adapter, checkpointing": ["model.gradient_checkpointing=true"],
    "adapter on NF4": ["model.quantise=nf4"],
    "adapter, five domains": ["FIVE"],
    "all weights": ["model.lora=null"],
    "all weights, checkpointing": ["model.lora=null", "model.gradient_checkpointing=true"],
}
"""Name -> settings over the small run's."""


def main() -> None:
    """Plan and run each configuration and write results/fits.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        found = [measured(folder, case) for case in options.only]
    ratios = {row["run"]: {"measured / planned": row["measured"] / row["planned"]} for row in found}
    print(f"wrote {write('fits', {'model': WIDTH, 'runs': RUNS}, found, ratios)}")


def make_model(folder: Path) -> None:
    """Write a random Llama with the packaged tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from grail.config.run import Model
    from grail.model.load import load_tokenizer

    tokenizer = load_tokenizer(Model())
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = LlamaConfig(
        **WIDTH, num_attention_heads=16, vocab_size=len(tokenizer), **ends, dtype="bfloat16"
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measured(folder: Path, case: str) -> dict[str, Any]:
    """Plan and run one configuration; return both peaks in GiB."""
    settings = RUNS[case]
    names = ("a", "b", "c", "d", "e") if "FIVE" in settings else ("a", "b")
    file = folder / "run.json"
    content = {
        "model": {"name": str(folder / "model")},
        "domains": domains(folder, names),
        "preset": "grail",
        "teach": {"epochs": 1},
        "data": {"template": "plain"},
        "unlearning": {"epochs": 1},
        "evaluation": {"generate": False},
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    chosen = [f"--set={setting}" for setting in settings if setting != "FIVE"]
    plan = ["plan", str(file), "--shape", str(folder / "model"), "--json", *chosen]
    planned = json.loads(grail(plan)[0])["unified"][0]
    output = ["--output", str(folder / case.replace(" ", "_"))]
    peak = grail(["run", str(file), "--json", *chosen, *output])[1]
    row = {"run": case, "planned": planned / 2**30, "measured": peak / 2**20}
    print(row, flush=True)
    return row


def domains(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return domains with rows of their own."""
    return {
        name: {
            side: {"train": write_rows(folder, f"{name}_{side}")} for side in ("unlearn", "retain")
        }
        for name in names
    }


def write_rows(folder: Path, name: str, count: int = 12) -> str:
    """Write rows about made-up things; return the file's name."""
    file = folder / f"{name}.jsonl"
    rows = [
        {
            "prompt": f"What does the {name} record number {i} say about the town of {name}{i}?",
            "completion": f"It says that {name}{i} has {i + 3} bridges and a market on day {i}.",
        }
        for i in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def grail(command: list[str]) -> tuple[str, int]:
    """Run a command of grail in a process of its own: what it printed, and its peak in KiB."""
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen([sys.executable, "-m", "grail", *command], stdout=output)
        _, status, usage = os.wait4(child.pid, 0)
        output.seek(0)
        text = output.read()
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return text, usage.ru_maxrss


if __name__ == "__main__":
    main()
