"""`grail export` on the command line."""

import json

from grail.cli.main import main
from grail.files import file_digest


def test_it_writes_a_folder_and_says_what(finished, tmp_path, capsys):
    finished()
    run, out = str(tmp_path / "run"), tmp_path / "out"
    assert main(["export", run, "--adapter", "--output", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["output"], found["form"]) == (str(out), "adapter")
    assert found["files"] == {file.name: file_digest(file) for file in out.iterdir()}
    assert main(["export", run, "--adapter", "--output", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", run, "--delta", "--output", str(tmp_path / "delta")]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"wrote: {tmp_path / 'delta'} (delta;")
    assert "gives back the model before" in said


def test_an_upload_that_cannot_be_is_refused_before_any_work(finished, tmp_path, capsys):
    finished()
    words = ["export", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    for form, hub, problem in (
        ("--adapter", "me/mine", "HF_HUB_OFFLINE is set"),
        ("--delta", "me/mine", "a delta gives back what was removed"),
    ):
        assert main([*words, form, "--push-to-hub", hub]) == 2
        assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
