"""``grail audit`` on the command line."""

import json

import pytest

from grail import api
from grail.cli.main import main
from grail.errors import InputError
from grail.reporting.audit.tables import read_audit
from grail.reporting.verdict import verdict
from grail.results import read_results

QUICK = ("--set", "audit.attacks=[prune]")


def test_the_verdict_is_printed_or_given_as_json(copied, runs, capsys):
    folder = copied("run")
    assert main(["audit", str(folder), "--oracle", str(runs["oracle"]), *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    on_disk = json.loads((folder / "audit.json").read_text())
    for key in ("outcome", "passed", "sentences", "measured"):
        assert found[key] == on_disk[key]
    assert found["output"] == str(folder / "audit.json")
    assert main(["audit", str(folder), "--oracle", str(runs["oracle"]), *QUICK]) == 0
    shown = capsys.readouterr()
    text = " ".join(shown.out.split())
    assert found["sentences"][0] in text
    assert "Attacks" in text
    wanted = verdict(read_results(folder / "results.json"), read_audit(folder))
    assert f"verdict: {wanted.sentences[0]}" in text
    assert "kept audit unlearned: prune" in shown.err


def test_what_cannot_be_audited_is_refused(runs, tmp_path, capsys):
    assert main(["audit", str(tmp_path)]) == 2
    assert main(["audit", str(runs["run"]), "--oracle", str(runs["same"])]) == 2
    assert "grail: error: --oracle:" in capsys.readouterr().err


def test_the_report_has_a_section_for_the_audit(copied, capsys):
    folder = copied("run")
    assert main(["audit", str(folder), *QUICK]) == 0
    before = (folder / "report.md").read_text()
    assert "## Attacks" not in before
    assert main(["report", str(folder)]) == 0
    capsys.readouterr()
    first = json.loads((folder / "audit.json").read_text())["sentences"][0]
    md = (folder / "report.md").read_text()
    assert f"## Audit in words\n\n- {first}" in md
    assert "## Attacks" in md
    html = (folder / "report.html").read_text()
    assert '<section id="audit">' in html
    assert first in html


def test_from_python_it_is_the_same_audit(copied, runs):
    folder, keys = copied("run"), {"attacks": ["prune"], "relearn": {"steps": [3]}}
    found = api.audit(str(folder), runs["oracle"], keys)
    written = (folder / "audit.json").read_bytes()
    kept = json.loads(written)
    assert kept.pop("sha256")  # the file's digest of itself
    assert json.loads(json.dumps(found)) == kept
    again = ("--oracle", str(runs["oracle"]), *QUICK, "--set", "audit.relearn.steps=[3]")
    assert main(["audit", str(folder), *again]) == 0
    assert (folder / "audit.json").read_bytes() == written
    with pytest.raises(InputError, match=r"audit\.prun"):
        api.audit(folder, settings={"prun": [0.5]})
