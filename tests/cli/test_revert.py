"""`grail revert` on the command line."""

import json

from grail.cli.main import main
from grail.files import file_digest


def test_it_names_each_file_as_sha256sum_does(finished, tmp_path, capsys):
    finished()
    assert main(["revert", str(tmp_path / "run"), "--output", str(tmp_path / "one")]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    wanted = [f"{file_digest(f)}  {f.name}" for f in sorted((tmp_path / "one").iterdir())]
    assert lines == wanted
    assert last.endswith("It knows what was removed.")
    words = ["revert", str(tmp_path / "run"), "--output", str(tmp_path / "two"), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["from"] == str(tmp_path / "run" / "vanilla")
    assert [f"{sha}  {name}" for name, sha in found["files"].items()] == wanted
