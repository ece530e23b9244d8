"""A run is opened without its data files; what cannot be handed over is refused."""

import shutil

import pytest

from grail.errors import InputError
from grail.handover.opened import check_empty, check_start, open_run
from grail.model.save import load_weights
from grail.run import manifest


def test_a_run_opens_without_its_data_files(finished, tmp_path):
    finished()
    shutil.rmtree(tmp_path / "data")
    context = open_run(tmp_path / "run", "vanilla", "unlearned")
    check_start(tmp_path / "run", context)
    load_weights(context.model, tmp_path / "run" / "unlearned")
    assert context.rows == ()


def test_what_is_not_that_far_is_refused(finished, tmp_path):
    finished()
    run = tmp_path / "run"
    with pytest.raises(InputError, match="is not a run directory"):
        open_run(tmp_path, "unlearned")
    file = run / "unlearned" / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="its weights are not those"):
        open_run(run, "unlearned")
    open_run(run, "vanilla")
    (run / "results.json").unlink()
    open_run(run, "vanilla")
    with pytest.raises(InputError, match="Finish it: grail run"):
        open_run(run, "unlearned")
    manifest.record_purged(run, ["vanilla"])
    with pytest.raises(InputError, match=r"was purged on \d{4}-"):
        open_run(run, "vanilla")


@pytest.mark.parametrize(
    "name", ["config.yaml", "unlearned/tokenizer.json", "unlearned/adapter_config.json"]
)
def test_what_was_changed_beside_the_weights_is_refused(name, finished, tmp_path):
    finished()
    run = tmp_path / "run"
    (run / name).write_bytes((run / name).read_bytes() + b"\n")
    with pytest.raises(InputError, match=f"{name} is not as grail wrote it"):
        open_run(run, "unlearned")


def test_another_base_model_is_refused(finished, tiny_model_folder, tmp_path, tiny_model):
    shutil.copytree(tiny_model_folder, tmp_path / "base")
    finished()
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace(str(tiny_model_folder), str(tmp_path / "base")))
    manifest.drop(tmp_path / "run", "config.yaml")
    check_start(tmp_path / "run", open_run(tmp_path / "run"))
    tiny_model(lora=False, tied=False, vocabulary=262, seed=1).save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match="holds another model than when the run was made"):
        check_start(tmp_path / "run", open_run(tmp_path / "run"))


def test_only_an_empty_folder_is_written_to(tmp_path):
    check_empty(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_empty(tmp_path / "empty")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "."):
        with pytest.raises(InputError, match="Choose a new or empty folder"):
            check_empty(tmp_path / name)
