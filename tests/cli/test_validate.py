"""`grail validate`: what it counts, which problems it lists, and that it writes nothing."""

import json
import shutil

from grail.cli.main import main


def test_validate_counts_rows_and_writes_nothing(tiny_config, tmp_path, capsys):
    assert main(["validate", str(tiny_config())]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "privacy.unlearn.train: 4 rows" in out
    assert "copyright.retain.val: 2 rows" in out
    assert out[-1].endswith(f"is valid. It would write to {tmp_path / 'run'}.")
    assert not (tmp_path / "run").exists()


def test_validate_lists_every_problem_at_once(tiny_config, tmp_path, capsys):
    config = tiny_config(localization={"method": "graill"}, unlearning={"objective": "ascend"})
    (tmp_path / "data" / "privacy_unlearn_val.jsonl").write_text('{"prompt": 1}\n[]\n')
    (tmp_path / "data" / "copyright_retain_train.jsonl").unlink()
    assert main(["validate", str(config)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("grail: error: ") for line in lines)
    text = "\n".join(lines)
    for piece in ("val.jsonl line 1", "val.jsonl line 2", "copyright_retain_train.jsonl does not"):
        assert piece in text
    assert "Did you mean 'grail'" in text
    assert "unlearning.objective: 'ascend'" in text


def test_validate_reads_the_rows_as_the_model_will(
    tiny_config, tiny_model_folder, tmp_path, capsys, monkeypatch
):
    """What no weights are needed for is told by both commands, and before any work."""
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    values = json.loads(file.read_text())
    longer = {"max_new_tokens": 40}
    config = str(tiny_config(model={"name": str(tmp_path / "model")}, evaluation=longer))
    for key, value, words in (
        ("max_position_embeddings", 12, "data.max_tokens to 12 or less"),
        ("max_position_embeddings", 25, "evaluation.max_new_tokens to "),
        ("vocab_size", 100, "the model has embeddings for 100 tokens"),
    ):
        file.write_text(json.dumps(values | {key: value}))
        assert main(["validate", config]) == 2
        assert words in capsys.readouterr().err
    file.write_text(json.dumps(values))
    (tmp_path / "model" / "model.safetensors").unlink()
    assert main(["validate", config]) == 0
    assert not (tmp_path / "run").exists()


def test_validate_warns_on_stderr(tiny_config, tmp_path, capsys):
    config = tiny_config()
    file = tmp_path / "data" / "privacy_unlearn_train.jsonl"
    file.write_text(file.read_text() * 2)
    assert main(["validate", str(config)]) == 0
    assert "warning: 4 rows of privacy.unlearn.train repeat" in capsys.readouterr().err
    assert main(["validate", str(config), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["warnings"]) == 1


def test_errors_of_settings_and_of_rows_are_told_together(tiny_config, tmp_path, capsys):
    config = tiny_config(unlearning={"epoch": 3})
    (tmp_path / "data" / "privacy_unlearn_val.jsonl").write_text('{"prompt": "x", "anwser": "y"}\n')
    assert main(["validate", str(config)]) == 2
    text = capsys.readouterr().err
    assert "unknown key unlearning.epoch" in text
    assert "Did you mean 'answer'" in text


def test_what_is_trained_on_which_rows_is_told(tiny_config, capsys):
    def said(*sets):
        words = [word for text in sets for word in ("--set", text)]
        assert main(["validate", str(tiny_config(domains=("d",))), *words]) == 0
        return capsys.readouterr().out

    ending = ", then unlearns 4 rows and retains 4 rows\n"
    assert "teaches 6 unlearn and 6 retain rows to " in (text := said())
    assert f" first{ending}" in text
    assert "teaches 4 unlearn and 4 retain rows" in said("teach.include_val=false")
    assert f" as it is{ending}" in said("teach=null")
    exact = said("unlearning.objective=exact", "localization.method=none")
    assert "first, then trains it anew on 4 retain rows alone" in exact
