"""What accelerate cannot do is refused in the words of the settings, or of its own variables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import grail
from grail.errors import InputError
from grail.training import accelerator
from grail.training.accelerator import make_accelerator

CODE = """
import sys
from grail.errors import InputError
from grail.training.accelerator import make_accelerator
try:
    print("made for", make_accelerator().distributed_type.value)
except InputError as error:
    print(error)
"""


def made_with(**variables):
    """In a process of its own: accelerate keeps one state per process."""
    environment = os.environ | {"PYTHONPATH": str(Path(grail.__file__).parents[1])} | variables
    command = [sys.executable, "-c", CODE]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return run.stdout.strip()


def test_an_unknown_tracker_is_an_input_error(tmp_path):
    expected = r"unlearning\.trackers: 'tensorbord' is not known. Did you mean 'tensorboard'\?"
    with pytest.raises(InputError, match=expected):
        make_accelerator(["tensorbord"], tmp_path)


@pytest.mark.parametrize("tracker", ["wandb", "all"])
def test_a_tracker_that_is_not_installed_is_not_left_out_in_silence(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "get_available_trackers", list)
    with pytest.raises(InputError, match=rf"trackers: {tracker} is not installed"):
        make_accelerator([tracker], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "many"),
        ("ACCELERATE_TORCH_DEVICE", "abacus"),
    ],
)
def test_variables_that_cannot_be_followed_are_blamed_themselves(name, value):
    said = made_with(**{name: value})
    assert said.startswith(f"accelerate cannot follow its environment variables ({name}={value}):")
    assert "trackers" not in said


@pytest.mark.slow
def test_the_precision_is_that_of_the_settings():
    assert made_with(ACCELERATE_MIXED_PRECISION="fp16", ACCELERATE_LOG_WITH="x") == "made for NO"
