"""What accelerate cannot do is refused in the words of the settings, or of its own variables."""

import json

import accelerated
import forks
import pytest

from grail.cli.main import main
from grail.errors import InputError
from grail.training import accelerator
from grail.training.accelerator import make_accelerator


@pytest.fixture
def made_with(tmp_path):
    """What an accelerator says in a process with these variables: ``made_with(NAME=value)``."""

    def make(**variables):
        log = tmp_path / "log"
        assert forks.run(accelerated.main, variables, log=log) == 0, log.read_text()
        return log.read_text().strip()

    return make


def test_an_unknown_tracker_is_an_input_error(tmp_path):
    expected = r"unlearning\.trackers: 'tensorbord' is not known. Did you mean 'tensorboard'\?"
    with pytest.raises(InputError, match=expected):
        make_accelerator(["tensorbord"], tmp_path)


@pytest.mark.parametrize("tracker", ["wandb", "all"])
def test_a_tracker_that_is_not_installed_is_not_left_out_in_silence(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "get_available_trackers", list)
    with pytest.raises(InputError, match=rf"trackers: {tracker} is not installed"):
        make_accelerator([tracker], tmp_path)


@pytest.fixture
def tracked(monkeypatch):
    """Put a tracker in the place of W&B's; returns what it was told."""
    import accelerate
    from accelerate import tracking
    from accelerate.state import AcceleratorState

    told = []

    class Tracker(tracking.GeneralTracker):
        name, requires_logging_directory = "wandb", False

        def __init__(self, project, **settings):
            super().__init__()
            told.append(("start", project, settings))
            if settings["dir"].endswith("closed"):
                raise RuntimeError("nobody is logged in.")

        tracker = None

        def store_init_configuration(self, values):
            told.append(("settings", values))

        def log(self, values, step=None, **more):
            told.append((step, values))

        def finish(self):
            told.append(("end",))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Tracker)
    for module in (accelerator, tracking):
        monkeypatch.setattr(module, "get_available_trackers", lambda: [tracking.LoggerType.WANDB])
    assert accelerate.accelerator.LOGGER_TYPE_TO_CLASS is tracking.LOGGER_TYPE_TO_CLASS
    AcceleratorState._reset_state(reset_partial_state=True)
    yield told
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_tracker_hears_each_step_of_stage_3_once(tracked, tiny_config, tmp_path):
    config = tiny_config(unlearning={"trackers": ["wandb"]})
    assert main(["unlearn", str(config)]) == 0
    start, settings, *steps, end = tracked
    assert start == ("start", "grail", {"dir": str(tmp_path / "run")})
    assert settings[1]["learning_rate"] == 0.01
    assert settings[1]["until.row_accuracy"] == "null"
    lines = (tmp_path / "run" / "train.jsonl").read_text().splitlines()
    logged = [(line["step"], line["terms"]) for line in map(json.loads, lines)]
    assert steps == logged
    assert end == ("end",)


def test_a_tracker_that_cannot_start_is_refused_before_any_training(tracked, tiny_config, capsys):
    config = tiny_config(unlearning={"trackers": ["wandb"]}, name="closed")
    assert main(["run", str(config)]) == 2
    said = capsys.readouterr().err
    assert "unlearning.trackers: wandb cannot start (RuntimeError: nobody is logged in)." in said
    assert not (config.parent / "closed" / "vanilla").exists()


def test_validate_refuses_a_tracker_that_is_not_installed(tiny_config, monkeypatch, capsys):
    monkeypatch.setattr(accelerator, "get_available_trackers", list)
    assert main(["validate", str(tiny_config(unlearning={"trackers": ["mlflow"]}))]) == 2
    assert "unlearning.trackers: mlflow is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "many"),
        ("ACCELERATE_TORCH_DEVICE", "abacus"),
    ],
)
def test_variables_that_cannot_be_followed_are_blamed_themselves(name, value, made_with):
    said = made_with(**{name: value})
    assert said.startswith(f"accelerate cannot follow its environment variables ({name}={value}):")
    assert "trackers" not in said


def test_the_precision_is_that_of_the_settings(made_with):
    assert made_with(ACCELERATE_MIXED_PRECISION="fp16", ACCELERATE_LOG_WITH="x") == "made for NO"
