"""`grail init`, then `grail validate` of what it wrote."""

import json

from grail.cli.main import main

LOSE = "Question,Answer\nWhere does she live?,At 3 Mill Lane.\n"
KEEP = "Question,Answer\nWhat does she do?,She builds bridges.\n"


def test_what_init_writes_is_valid(tmp_path, tiny_model_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lose.csv").write_text(LOSE)
    (tmp_path / "keep.csv").write_text(KEEP)
    words = ["init", "--model", str(tiny_model_folder), "--unlearn", "lose.csv"]
    words += ["--retain", "keep.csv", "--output", "erase.yaml"]
    assert main(words) == 0
    assert "Next: grail validate erase.yaml" in capsys.readouterr().out
    assert main(["validate", "erase.yaml"]) == 0
    said = f"takes {tiny_model_folder} as it is, then unlearns 1 row and retains 1 row\n"
    assert said in capsys.readouterr().out
    before = (tmp_path / "erase.yaml").read_bytes()
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "erase.yaml").read_bytes() == before
    assert main([*words[:-1], "b.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output"] == "b.yaml"
    assert main([*words[:-1], "c.yaml", "--prompt", "Question"]) == 2
    assert "belong together" in capsys.readouterr().err
