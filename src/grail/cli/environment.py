"""Versions, devices and optional packages of this machine: ``grail env``, for bug reports."""

import os
import platform
from typing import Any

from grail import __version__
from grail.model.sources import PACKAGED, cache, is_packaged, version
from grail.run.provenance import PACKAGES, revision

OPTIONAL = ("datasets", "tensorboard", "lm-eval")


def describe_environment() -> dict[str, Any]:
    """Return versions, devices, optional packages, the embedded model and the cache folder."""
    import torch

    device = "cpu"
    if torch.cuda.is_available():
        device = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    avx512_bf16 = torch.cpu.get_capabilities().get("avx512_bf16")
    return {
        "grail": __version__,
        "git": revision() or "not a checkout",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: version(name) or "missing" for name in PACKAGES},
        **{name: version(name) or "not installed (optional)" for name in OPTIONAL},
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16": "in hardware" if avx512_bf16 else "emulated",
        "model": {name: "packaged" if is_packaged(name) else "Hub" for name in PACKAGED},
        "cache": str(cache()),
    }
