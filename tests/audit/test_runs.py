"""Which runs can be audited, and which can be their oracle."""

import dataclasses
import shutil

import pytest
import yaml

from grail.audit.runs import read_oracle, read_run
from grail.errors import InputError
from grail.run import manifest


def change(folder, section, key, value):
    file = folder / "config.yaml"
    raw = yaml.safe_load(file.read_text())
    raw[section][key] = value
    file.write_text(yaml.safe_dump(raw))
    manifest.drop(folder, "config.yaml")  # as if the run had been made so
    manifest.record(folder)


def test_a_finished_run_is_taken_with_the_settings_of_its_audit(runs):
    run = read_run(runs["run"], ["audit.max_rows=5"])
    assert run.config.audit.max_rows == 5
    assert run.config.unlearning.learning_rate == 0.003
    assert set(run.weights) == {"vanilla", "unlearned"}
    assert not run.is_oracle
    assert read_run(runs["oracle"]).is_oracle


def test_only_the_audit_can_be_set(runs):
    with pytest.raises(InputError, match="only keys of the section audit"):
        read_run(runs["run"], ["seed=1"])
    with pytest.raises(InputError, match="Did you mean 'max_rows'"):
        read_run(runs["run"], ["audit.max_row=1"])


def test_a_folder_without_results_is_refused(copied, tmp_path):
    with pytest.raises(InputError, match="not a run directory"):
        read_run(tmp_path / "nowhere")
    folder = copied("run")
    (folder / "results.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        read_run(folder)


def test_damaged_weights_and_changed_data_are_refused(copied, tmp_path):
    folder = copied("run")
    file = folder / "unlearned" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="is damaged"):
        read_run(folder)
    shutil.rmtree(folder / "unlearned")
    with pytest.raises(InputError, match="is missing"):
        read_run(folder)
    change(folder, "data", "max_rows", 3)
    with pytest.raises(InputError, match="not those of the run any more"):
        read_run(folder)


def test_another_base_model_in_the_same_place_is_refused(runs, copied):
    folder = copied("run")
    raw = yaml.safe_load((folder / "config.yaml").read_text())
    raw["made_with"]["model"] = "of another model"
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    manifest.drop(folder, "config.yaml")
    with pytest.raises(InputError, match=r"model\.name, .*, holds another model"):
        read_run(folder)


def test_the_oracle_never_saw_the_rows(runs):
    run = read_run(runs["run"])
    assert read_oracle(run, runs["oracle"]).is_oracle
    with pytest.raises(InputError, match="was unlearned with ascent_descent"):
        read_oracle(run, runs["same"])


def test_an_oracle_of_another_model_template_or_data_is_refused(runs, copied, tmp_path):
    run, folder = read_run(runs["run"]), copied("oracle")
    change(folder, "data", "max_tokens", 60)
    with pytest.raises(InputError, match="another section 'data'"):
        read_oracle(run, folder)
    shutil.rmtree(folder)
    copied("oracle")
    change(folder, "model", "attention", "sdpa")
    with pytest.raises(InputError, match="another section 'model'"):
        read_oracle(run, folder)
    shutil.rmtree(folder)
    copied("oracle")
    raw = yaml.safe_load((folder / "config.yaml").read_text())
    sides = raw["domains"]["privacy"]
    sides["unlearn"]["val"] = None
    del raw["made_with"]["data"]["privacy.unlearn.val"]
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    manifest.drop(folder, "config.yaml")
    with pytest.raises(InputError, match="made with other rows"):
        read_oracle(run, folder)


@pytest.mark.parametrize(
    ("key", "value", "refused"),
    [("learning_rate", 0.5, True), ("until", 0.5, True), ("checkpoint_steps", 7, False)],
)
def test_an_oracle_that_was_taught_otherwise_is_refused(runs, copied, key, value, refused):
    """One that learned less knows less for that alone."""
    run, folder = read_run(runs["run"]), copied("oracle")
    change(folder, "teach", key, value)
    if refused:
        with pytest.raises(InputError, match=f"trained with another teach.{key}"):
            read_oracle(run, folder)
    else:
        assert read_oracle(run, folder).is_oracle
    config = run.config.model_copy(update={"teach": None})
    assert read_oracle(dataclasses.replace(run, config=config), folder).is_oracle


def test_models_of_another_run_are_refused(runs, copied):
    """Each folder is sound in itself, and the results are of others."""
    for name in ("unlearned", "vanilla"):
        folder = copied("run")
        shutil.rmtree(folder / name)
        shutil.copytree(runs["oracle"] / "unlearned", folder / name)
        with pytest.raises(InputError, match="is not about the models"):
            read_run(folder)
        shutil.rmtree(folder)


def edit(file, old, new):
    """Put ``new`` in the place of ``old``; without ``old``, clear the last bits of the file."""
    data = file.read_bytes()
    edited = data.replace(old, new) if old else data[:-2] + bytes(b ^ 255 for b in data[-2:])
    assert edited != data
    file.write_bytes(edited)


def test_a_damaged_run_is_one_message(copied):
    folder = copied("run")
    for name, damage, words in (
        ("results.json", lambda file: edit(file, b'"n": ', b'"n": 1'), "is not as grail wrote it"),
        ("samples.jsonl", lambda file: edit(file, b"0", b"1"), "is not as grail wrote it"),
        ("train.jsonl", lambda file: edit(file, b"seconds", b"second"), "is damaged"),
        ("mask.safetensors", lambda file: edit(file, None, b""), "is not as grail wrote it"),
        ("unlearned/stage.json", lambda file: file.write_bytes(file.read_bytes()[:20]), "damaged"),
        ("unlearned/stage.json", lambda file: file.unlink(), "damaged"),
        ("mask.safetensors", lambda file: file.unlink(), "is missing"),
    ):
        sound = (folder / name).read_bytes()
        damage(folder / name)
        with pytest.raises(InputError, match=words) as error:
            read_run(folder)
        assert name.partition("/")[0] in str(error.value)
        (folder / name).write_bytes(sound)
