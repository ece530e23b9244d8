"""``grail plan --shape``: tables, advice, refusals."""

import json

import pytest

from grail.cli.main import main


def test_a_table_says_what_fits(tiny_config, capsys):
    file = str(tiny_config())
    assert main(["plan", file, "--shape", "7b", "--devices", "2", "--memory", "40"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "as configured" in text
    assert "FSDP2 on 2 devices" in text
    assert "6.7 G parameters, 5.0 M trainable: fits with" in text
    assert "Give --tflops for times" in text


def test_json_holds_bytes_and_nothing_is_written(tiny_config, tmp_path, capsys):
    file = str(tiny_config())
    command = ["plan", file, "--shape", "1b", "--tflops", "100", "--json", "--memory", "0.1"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["ways"]) == len(found["peaks"]) == len(found["unified"])
    assert any("TFLOP/s on each of 1 device." in note for note in found["notes"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "8c"], "--shape: 8c is neither one of 1b, 7b, 13b, 70b"),
        (["--shape", "7b", "--devices", "0"], "--devices: 0 must be above 0"),
        (["--shape", "7b", "--memory", "-1"], "--memory: -1.0 must be above 0"),
    ],
)
def test_refusals(tiny_config, capsys, arguments, message):
    assert main(["plan", str(tiny_config()), *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_comparison_has_no_shape(tmp_path, capsys):
    file = tmp_path / "compare.yaml"
    file.write_text("base: {}\nmethods: {a: {}}\n")
    assert main(["plan", str(file), "--shape", "7b"]) == 2
    assert "--shape plans a run" in " ".join(capsys.readouterr().err.split())


def test_what_fits_nowhere_gets_advice_and_settings_are_printed_whole(tiny_config, capsys):
    """Settings are there to be copied, also from a narrow terminal."""
    assert main(["plan", str(tiny_config()), "--shape", "1b", "--memory", "0.1"]) == 0
    text = capsys.readouterr().out
    assert "fits in no way listed. Use more devices" in " ".join(text.split())
    both = "--set model.quantise=nf4 --set model.gradient_checkpointing=true"
    assert both in " ".join(text.split())
    assert "…" not in text
