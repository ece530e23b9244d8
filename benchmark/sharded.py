"""Peak memory of one process with the whole model, and of two with a part each (FSDP2).

    python benchmark/sharded.py          # writes results/sharded.json; minutes on two cores

A random Llama, whose weights outweigh all else, is scored and unlearned with all weights. Each
process says how much memory it held at most. Then one process is given the address space that each
of the two needed, in which it must fail. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = "child"
"""First word of the command line of a process that is measured."""
WIDTH, LAYERS = 768, 12
SHARE = 0.65
"""The most that each of two processes may take of what one takes alone."""


def make(folder: Path) -> Path:
    """Write a random model, its tokenizer and few short rows; return the settings file."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "scripts"))
    import tiny

    tokenizer = tiny.tiny_tokenizer()
    shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": 12, "num_key_value_heads": 12}
    config = AutoConfig.for_model("llama", **shape, **heads, vocab_size=len(tokenizer))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    domains: dict[str, dict[str, str]] = {"d": {}}
    for side in ("unlearn", "retain"):
        rows = [{"prompt": f"{side} {i}?", "completion": f"{i}{i}"} for i in range(4)]
        (folder / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        domains["d"][side] = {"train": str(folder / f"{side}.jsonl")}  # type: ignore[assignment]
    settings = {
        "model": {"name": str(folder / "model"), "lora": None, "dtype": "float32"},
        "domains": domains,
        "data": {"template": "plain"},
        "teach": False,
        "importance": {"trials": 1},
        "unlearning": {"objective": "ascent_descent", "epochs": 2, "batch_size": 4},
        "output": str(folder / "run"),
    }
    file = folder / "settings.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    return file


def child(words: list[str], limit: int) -> None:
    """Run grail in this process under a limit (bytes; 0: none), and say its peak."""
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    from grail.cli.main import main

    code = main(words)
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {name: text.split()[0] for name, _, text in (line.partition(":") for line in lines)
           if name in ("VmPeak", "VmHWM")}  # fmt: skip
    held = {name: int(size) * 1024 for name, size in kib.items()}
    Path(os.environ["PEAKS"], os.environ.get("RANK", "0")).write_text(json.dumps(held))
    sys.exit(code)


def peaks(file: Path, processes: int, limit: int = 0) -> list[dict[str, int]]:
    """Return what each process of ``grail unlearn`` held at most (bytes); nothing if it failed.

    VmHWM is the memory, VmPeak the address space.
    """
    output = file.parent / f"run-{processes}-{limit}"
    words = [__file__, CHILD, str(limit), "unlearn", str(file), "--output", str(output)]
    with tempfile.TemporaryDirectory() as folder:
        more = {"PEAKS": folder, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *words]
        if processes > 1:
            more |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true"}
            more |= {"FSDP_VERSION": "2"}
            launch = [
                "-m",
                "torch.distributed.run",
                "--standalone",
                f"--nproc-per-node={processes}",
            ]
            command = [sys.executable, *launch, *words]
        done = subprocess.run(command, env=os.environ | more, check=False)
        found = [json.loads(file.read_text()) for file in sorted(Path(folder).iterdir())]
        return found if done.returncode == 0 else []


def measure() -> None:
    """Measure one process, two, and one under the limit that two can keep."""
    with tempfile.TemporaryDirectory() as folder:
        file = make(Path(folder))
        (whole,), parts = peaks(file, 1), peaks(file, 2)
        room = max(part["VmPeak"] for part in parts)
        share = max(part["VmHWM"] for part in parts) / whole["VmHWM"]
        fits = bool(peaks(file, 1, room))
    found = {"whole": whole, "parts": parts, "whole_fits_the_room_of_a_part": fits}
    settings = {"layers": LAYERS, "width": WIDTH, "wanted": SHARE}
    from machine import write

    print(f"wrote {write('sharded', settings, [found], {'part / whole': round(share, 4)})}")


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[3:], int(sys.argv[2]))
    argparse.ArgumentParser(description=str(__doc__).partition("\n")[0]).parse_args()
    measure()
