"""A text planted in every kind of row is in no file and no message of grail, in no encoding."""

import base64
import json
import re
import stat
import tempfile

import forks
import interrupted
import pytest

from grail.cli.main import main
from grail.handover.export import FORMS

CANARY = "Zoë \u2028Quux 4711"


def spellings(text):
    """Every sequence of bytes that the text may be hidden in."""
    plain = [text, json.dumps(text)[1:-1], text.encode("unicode_escape").decode()]
    found = {part.encode() for part in plain} | {repr(text)[1:-1].encode()}
    found |= {text.encode(kind) for kind in ("utf-16-le", "utf-16-be", "utf-32-le")}
    for part in list(found):
        for start in range(3):  # where in a group of three bytes it begins
            whole = base64.b64encode(b"\0" * start + part)
            found.add(whole[(0, 2, 3)[start] : -4])
    return found


def hits(folder, *others):
    """Files under the folders that hold the canary; its words apart count, too."""
    pattern = re.compile(b"|".join(map(re.escape, spellings(CANARY) | spellings("Quux 4711"))))
    files = [file for place in (folder, *others) for file in place.rglob("*") if file.is_file()]
    assert files
    return [file for file in files if pattern.search(file.read_bytes())]


@pytest.fixture
def planted(tiny_config, tmp_path, monkeypatch):
    """Settings for a run whose rows hold the canary; temporary files go to ``tmp_path / "tmp"``."""
    forks.serve()  # while temporary files are not those of a test
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def make(**sections):
        room = {"max_tokens": 128}
        config = tiny_config(domains=("a",), rows=3, val=1, data=room, **sections)
        for file in (tmp_path / "data").glob("*.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            for place, row in enumerate(rows):
                row["prompt"] += f" {CANARY}" * (place == 0)
                row["completion"] += f" {CANARY}" * (place != 1)
                row["paraphrases"] = [f"{row['prompt'][:6]} {CANARY}"]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        held = tmp_path / "data" / "held.jsonl"
        held.write_text(json.dumps({"prompt": f"h {CANARY}", "completion": f"i {CANARY}"}) + "\n")
        text = config.read_text().replace("    retain:", f"      heldout: {held}\n    retain:")
        config.write_text(text)
        return config

    return make


def searched(tmp_path):
    return [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "data"]


def test_the_search_itself_finds_every_spelling(tmp_path):
    for number, spelling in enumerate(sorted(spellings(CANARY))):
        (tmp_path / f"{number}").write_bytes(b"x" * number + spelling + b"y")
    text = base64.b64encode(b"ab" + f"said {CANARY}.".encode("utf-16-le"))
    (tmp_path / "coded").write_bytes(text)
    assert len(hits(tmp_path)) == len(spellings(CANARY)) + 1


def test_a_run_its_audit_and_what_they_say_hold_no_text_of_a_row(
    planted, tracked, tmp_path, capsys
):
    """Nor does what is exported, nor what a tracker is told, which may send it anywhere."""
    config, run = str(planted(unlearning={"trackers": ["wandb"]})), str(tmp_path / "run")
    assert main(["validate", config]) == 0
    assert main(["run", config]) == 0
    assert main(["audit", run, "--set", "audit.relearn.steps=[1]"]) == 0
    assert main(["attest", run, "--request", "1"]) == 0
    assert main(["verify", run]) == 0
    for form in FORMS:
        assert main(["export", run, f"--{form}", "--output", str(tmp_path / form)]) == 0
    assert {word for word, *_ in tracked} >= {"start", "settings", 1, "end"}
    (tmp_path / "run" / "told").write_text(repr(tracked))
    said = capsys.readouterr()
    (tmp_path / "run" / "said").write_text(said.out + said.err)
    assert not hits(*searched(tmp_path))


def test_a_run_with_texts_keeps_them_from_others(planted, tmp_path, capsys):
    """The same search finds them where they were asked for; only the owner can read those files."""
    config = str(planted(evaluation={"show_text": True}))
    assert main(["run", config]) == 0
    assert main(["report", str(tmp_path / "run")]) == 0
    found = hits(tmp_path / "run")
    assert {"samples.jsonl", "report.html"} <= {file.name for file in found}
    assert all(
        stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]
    )


def test_a_killed_run_holds_none_either(planted, tmp_path):
    config, log = planted(), tmp_path / "run" / "said"
    (tmp_path / "run").mkdir()
    words, at = ["run", str(config)], re.escape("after move unlearned.checkpoint")
    events = tmp_path / "events"
    assert forks.run(interrupted.main, words, None, at, events, log=tmp_path / "said") == -9
    (tmp_path / "said").rename(log)
    assert (tmp_path / "run" / "unlearned.checkpoint").is_dir()
    assert not hits(*searched(tmp_path))


def test_a_comparison_and_the_logs_of_its_cells_hold_none(planted, played, tmp_path, capsys):
    from grail.files import dump_yaml, parse_yaml

    base = parse_yaml(planted(evaluation={"generate": False}).read_text())
    del base["output"]
    content = {"base": base, "methods": {"one": {}}, "figures": [], "output": str(tmp_path / "out")}
    file = tmp_path / "comparison.yaml"
    file.write_text(dump_yaml(content))
    assert main(["compare", str(file)]) == 0
    said = capsys.readouterr()
    (tmp_path / "out" / "said").write_text(said.out + said.err)
    assert list((tmp_path / "out").rglob("log"))
    assert not hits(*searched(tmp_path))
