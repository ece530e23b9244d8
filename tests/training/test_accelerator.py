"""What accelerate cannot do is refused in the words of the settings, or of its own variables."""

import json
from pathlib import Path

import accelerated
import forks
import pytest

from grail.cli.main import main
from grail.errors import InputError
from grail.training import accelerator
from grail.training.accelerator import in_parts, make_accelerator

LAUNCH = Path(__file__).parents[2] / "examples" / "launch"


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
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "many"),
        ("ACCELERATE_TORCH_DEVICE", "abacus"),
    ],
)
def test_variables_that_cannot_be_followed_are_blamed_themselves(name, value, made_with):
    said = made_with(**{name: value})
    assert said.startswith(f"accelerate cannot follow its environment variables ({name}={value}):")
    assert "trackers" not in said


def test_deepspeed_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(InputError, match=r"DeepSpeed is not supported: .* Use FSDP2"):
        make_accelerator()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FSDP_VERSION", "1", "FSDP version 1 is not supported"),
        ("FSDP_OFFLOAD_PARAMS", "true", "fsdp_offload_params is not supported"),
    ],
)
def test_what_fsdp_may_ask_for_is_not_left_out_in_silence(variable, value, said, monkeypatch):
    given = {"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2", "FSDP_VERSION": "2"}
    for name, text in (given | {variable: value}).items():
        monkeypatch.setenv(name, text)
    with pytest.raises(InputError, match=said):
        make_accelerator()


def test_one_process_has_no_parts(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not in_parts()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert in_parts()


@pytest.mark.parametrize("name", ["one", "several", "fsdp2"])
def test_accelerate_takes_the_launch_files(name, monkeypatch):
    """As ``accelerate launch`` reads them: its parser, and the environment that it starts with."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    file = LAUNCH / f"{name}.yaml"
    settings = load_config_from_file(str(file))
    kinds = {"one": "NO", "several": "MULTI_GPU", "fsdp2": "FSDP"}
    assert settings.distributed_type.value == kinds[name]
    if name != "fsdp2":
        return
    options = launch_command_parser().parse_args(["--config_file", str(file), "script.py"])
    options.use_fsdp = True
    for key, value in settings.fsdp_config.items():
        setattr(options, key, value)
    options.num_processes, options.mixed_precision = settings.num_processes, "no"
    options.num_machines, options.machine_rank = settings.num_machines, settings.machine_rank
    options.dynamo_backend = "no"
    environment = prepare_multi_gpu_env(options)
    for key, value in environment.items():
        if key.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.setenv(key, value)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert in_parts()
    accelerator._check_launch()


def test_the_precision_is_that_of_the_settings(made_with):
    assert made_with(ACCELERATE_MIXED_PRECISION="fp16", ACCELERATE_LOG_WITH="x") == "made for NO"
