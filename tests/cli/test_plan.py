"""``grail plan``: what it prints, its exit codes, and that it writes nothing."""

import json

from grail.cli.main import main
from grail.cli.plan import in_bytes, number, sizes, span


def test_a_plan_is_printed_and_nothing_is_written(tiny_config, tmp_path, capsys):
    file = tiny_config(evaluation={"general_tasks": []})
    before = sorted(tmp_path.rglob("*"))
    assert main(["plan", str(file)]) == 0
    out = capsys.readouterr().out
    for piece in ("vanilla", "At most", "Files", "Measured:", "trainable, on ", "still to do"):
        assert piece in out
    assert main(["plan", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["output"] == str(tmp_path / "run")
    assert found.keys() == {"output", "device", "shape", "stages", "notes", "total"}
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_input_has_exit_code_2(tiny_config, tmp_path, capsys):
    file = tiny_config()
    assert main(["plan", str(file), "--set", "localization.k_op_ur=7"]) == 2
    assert "localization.k_op_ur" in capsys.readouterr().err
    assert main(["plan", str(tmp_path / "none.yaml")]) == 2
    assert main(["plan", str(file), "--set", "model.name=nobody/has-this-model"]) == 2
    assert "model.name" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_numbers_have_the_digits_they_deserve():
    assert [number(v) for v in (0, 999, 1234, 12_345, 134_515_008, 2e12)] == [
        "0",
        "999",
        "1.2 k",
        "12 k",
        "135 M",
        "2.0 T",
    ]
    assert [in_bytes(v) for v in (0, 512, 9_823_216, 3 * 2**30, 5000 * 2**30)] == [
        "0 B",
        "512 B",
        "9.4 MiB",
        "3.0 GiB",
        "5000.0 GiB",
    ]
    assert sizes((1.25 * 2**30, 2.5 * 2**30)) == "1.2-2.5 GiB"
    assert [span(v) for v in ((0.1, 0.5), (1.2, 4), (70, 200), (4000, 9000))] == [
        "under 2 s",
        "1.2-4 s",
        "1.2-3 min",
        "1.1-2 h",
    ]
