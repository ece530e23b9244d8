"""Commands of grail in processes that say how long they took and what they held at most.

Linux only. Also the random models and rows that they work on.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def measured(
    words: Sequence[str], processes: int = 1, limit: int = 0, output: Path | None = None
) -> list[dict[str, float]]:
    """Run ``grail WORDS`` in processes with a thread each; return what each says of itself.

    That is VmHWM (the most memory) and VmPeak (the most address space) in bytes, and its seconds
    from the first import on; nothing if it failed.

    Args:
        words: The command and its arguments.
        processes: How many; several have the model in parts (FSDP2).
        limit: Of the address space of each, in bytes; 0: none.
        output: Where the command's output goes; None: nowhere in particular.
    """
    with tempfile.TemporaryDirectory() as folder:
        more = {"PEAKS": folder, "OMP_NUM_THREADS": "1"}
        command = [sys.executable]
        if processes > 1:
            more |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true"}
            more |= {"FSDP_VERSION": "2"}
            command += ["-m", "torch.distributed.run", "--standalone"]
            command.append(f"--nproc-per-node={processes}")
        with (output or Path(os.devnull)).open("w") as stream:
            done = subprocess.run(
                [*command, __file__, str(limit), *words],
                stdout=stream if output else None,
                env=os.environ | more,
                check=False,
            )
        found = [json.loads(file.read_text()) for file in sorted(Path(folder).iterdir())]
        return found if done.returncode == 0 else []


def _child(limit: int, words: list[str]) -> int:
    """Run grail in this process under a limit, and write what it took."""
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    began = time.perf_counter()
    from grail.cli.main import main

    code = main(words)
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kib = {name: text.split()[0] for name, _, text in (line.partition(":") for line in lines)
           if name in ("VmPeak", "VmHWM")}  # fmt: skip
    held: dict[str, float] = {name: int(size) * 1024 for name, size in kib.items()}
    held["seconds"] = round(time.perf_counter() - began, 2)
    Path(os.environ["PEAKS"], os.environ.get("RANK", "0")).write_text(json.dumps(held))
    return code


def make_model(folder: Path, width: int, layers: int, heads: int) -> None:
    """Write a random Llama with the tests' tokenizer of bytes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "scripts"))
    import tiny

    tokenizer = tiny.tiny_tokenizer()
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    several = {"num_attention_heads": heads, "num_key_value_heads": heads}
    config = AutoConfig.for_model("llama", **shape, **several, vocab_size=len(tokenizer))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_settings(
    file: Path, sections: dict[str, Any], domains: int, rows: int, length: int = 2
) -> None:
    """Write the settings of a run and its rows of so many letters, ``rows`` on each side."""
    given: dict[str, Any] = {}
    for domain in map(str, range(domains)):
        given[f"d{domain}"] = {}
        for side in ("unlearn", "retain"):
            place = file.with_name(f"{file.stem}.{domain}.{side}.jsonl")
            texts = (f"{side} {domain} {row}" for row in range(rows))
            lines = ({"prompt": f"{t}?", "completion": (t * length)[:length]} for t in texts)
            place.write_text("".join(json.dumps(line) + "\n" for line in lines))
            given[f"d{domain}"][side] = {"train": str(place)}
    settings = {"domains": given, "data": {"template": "plain"}, **sections}
    file.write_text(json.dumps(settings))  # JSON is YAML


if __name__ == "__main__":
    sys.exit(_child(int(sys.argv[1]), sys.argv[2:]))
