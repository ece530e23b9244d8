"""Everything that is wrong before a model is loaded, found at once."""

import os

import pytest

from grail.config_file import load
from grail.errors import InputError
from grail.preparation import check_adapter, check_output, prepare


def test_good_inputs_are_read_and_digested(tiny_config):
    inputs = prepare(load(tiny_config(), []))
    assert len(inputs.samples) == 2 * 2 * (4 + 2)
    assert len(inputs.general) == 1
    assert not inputs.warnings
    parts = {f"{d}.{s}.{p}" for d in ("privacy", "copyright") for s in ("unlearn", "retain")
             for p in ("train", "val")}  # fmt: skip
    assert set(inputs.digests) == parts | {"general.general.train"}


def test_every_problem_is_named_at_once(tiny_config, tmp_path):
    config = tiny_config(vanilla={"adapter": str(tmp_path / "none")})
    (tmp_path / "data" / "privacy_unlearn_train.jsonl").write_text("{\n")
    (tmp_path / "data" / "general.jsonl").unlink()
    (tmp_path / "run").touch()

    def more():
        raise InputError("one more")

    values = load(config, ["model.name=/no/such/model"])
    with pytest.raises(InputError) as caught:
        prepare(values, (more,))
    text = str(caught.value)
    wanted = ("privacy_unlearn_train.jsonl line 1", "general.train: ", "model.name: /no/such/model")
    for piece in (*wanted, "vanilla.adapter: ", "output: ", "one more"):
        assert piece in text


def test_the_same_rows_on_both_sides_are_refused_and_similar_ones_reported(tiny_config, tmp_path):
    config = tiny_config(domains=("d",), val=0)
    same, other = (tmp_path / "data" / f"d_{side}_train.jsonl" for side in ("unlearn", "retain"))
    text = same.read_text()
    other.write_text(text.replace('"completion": "', '"completion": "x'))
    assert "nearly the same" in prepare(load(config, [])).warnings[0]
    other.write_text(text)
    with pytest.raises(InputError, match="cannot be unlearned and retained"):
        prepare(load(config, []))


def test_an_adapter_is_a_peft_folder(tmp_path):
    check_adapter(None)
    with pytest.raises(InputError, match="is not a PEFT adapter folder"):
        check_adapter(str(tmp_path))
    (tmp_path / "adapter_config.json").touch()
    check_adapter(str(tmp_path))


def test_an_output_is_new_or_empty_or_a_run(tmp_path):
    check_output(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()
    folder = tmp_path / "folder"
    folder.mkdir()
    check_output(folder)
    (folder / ".lock").touch()  # hidden files say nothing
    check_output(folder)
    (folder / "config.yaml.partial").touch()  # killed at the first write
    check_output(folder)
    (folder / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex\)"):
        check_output(folder)
    (folder / "config.yaml").touch()
    check_output(folder)
    for below in (folder / "thesis.tex", folder / "thesis.tex" / "run"):
        with pytest.raises(InputError, match=r"thesis.tex is a file"):
            check_output(below)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_an_output_can_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written to"):
        check_output(tmp_path / "run")
    tmp_path.chmod(0o700)
