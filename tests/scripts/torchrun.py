"""Two processes as ``torchrun --nproc_per_node 2`` starts them, forked from this one."""

from __future__ import annotations

from server import imported
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def _one(script, folder):
    import torch

    torch.set_num_threads(1)
    imported(script).main(folder)


def main(script, folder):
    """Let both call ``main(folder)`` of a script."""
    how = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_endpoint="127.0.0.1:0",
        rdzv_backend="c10d",
        run_id="tests",
        start_method="fork",
        max_restarts=0,
    )
    elastic_launch(how, _one)(script, folder)
