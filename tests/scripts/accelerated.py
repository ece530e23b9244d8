"""An accelerator in a process of its own: accelerate keeps one state per process."""

import os
import sys

from grail.errors import InputError
from grail.training.accelerator import make_accelerator


def main(variables):
    """Say what an accelerator is made for under these environment variables, or why not."""
    os.environ |= variables
    try:
        sys.stdout.write(f"made for {make_accelerator().distributed_type.value}\n")
    except InputError as error:
        sys.stdout.write(f"{error}\n")
    sys.stdout.flush()
