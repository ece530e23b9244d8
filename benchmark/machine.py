"""What every benchmark writes beside its numbers: the machine, and one file format."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from grail.files import write_json
from grail.run.provenance import versions

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Return processor, cores, threads and versions."""
    return {
        "processor": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "bfloat16": bool(torch.cpu.get_capabilities().get("avx512_bf16")),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **versions(),
    }


def write(
    name: str | Path,
    settings: dict[str, Any],
    measurements: list[dict[str, Any]],
    ratios: dict[str, float],
) -> Path:
    """Write ``results/NAME.json``, or the file that ``name`` is, and return its path."""
    path = name if isinstance(name, Path) else RESULTS / f"{name}.json"
    content = {"machine": machine(), "settings": settings}
    write_json(path, content | {"measurements": measurements, "ratios": ratios})
    return path


def rows_of(results: Path, model: str) -> dict[str, float]:
    """Return {"domain.side.part.metric": value} of one model from a results.json."""
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    return {
        f"{r['domain']}.{r['side']}.{r['part']}.{r['metric']}": r["value"]
        for r in rows
        if r["model"] == model
    }
