"""The tables of an audit show what its rows say."""

import json

import pytest

from grail.config.audit import Audit
from grail.files import write_json
from grail.reporting.audit.knowledge import AUDIT_FORMAT
from grail.reporting.audit.tables import (
    audit_markdown,
    audit_section,
    read_audit,
)
from grail.reporting.tables import MISSING


def row(side, metric, value, **more):
    place = {"domain": "general" if side == "general" else "d|e", "side": side}
    return place | {"part": "train", "metric": metric, "value": value, "n": 7, "error": 2.0} | more


def found():
    plain = [row("unlearn", "US", 3.0), row("retain", "RS", 98.0), row("general", "NLL", 2.5)]
    after = [
        row("unlearn", "US", 60.0, change=-31.0, change_error=4.0, beyond=-5.0, beyond_error=2.0),
        row("retain", "RS", 81.5),
    ]
    entries = [
        ("vanilla", "plain", "plain", plain),
        ("unlearned", "plain", "plain", plain[:1]),
        ("unlearned", "quantise", "int4", after),
        ("oracle", "quantise", "int4", [row("unlearn", "US", 65.0)]),
    ]
    names = ("model", "attack", "amount", "rows")
    return {
        "format": AUDIT_FORMAT,
        "measured": [dict(zip(names, entry, strict=True)) for entry in entries],
        "weights": {"vanilla": "x", "unlearned": "y"},
        "oracle": "given",
        "skipped": [],
        "settings": Audit().model_dump(mode="json"),
        "sentences": ["Removed: <b>."],
    }


LINE = ("d|e", "quantise int4", "+5.0 [+1.0, +9.0]", "40.0 ± 2.0", "35.0", MISSING, "+31.0 ± 4.0")


def test_every_attack_has_a_line_and_the_oracle_comes_first():
    attacks, harm = audit_section(found())["tables"]
    assert attacks.columns[2:6] == ("Above oracle", "Unlearned %", "Oracle %", "Vanilla %")
    assert attacks.rows[1:] == ((*LINE, "60.0", "7"),)
    assert harm.columns == ("Model", "Attack", "RS d|e", "NLL general")
    assert harm.rows == (
        ("vanilla", MISSING, "98.0", "2.50"),
        ("unlearned", "quantise int4", "81.5", MISSING),
    )


def test_relearning_has_a_line_for_each_attacker():
    case = found()
    for model, us in (("unlearned", 40.0), ("oracle", 55.0)):
        for step, more in (("0", 30.0), ("5", 0.0), ("area", 10.0)):
            for name in ("relearn-few@0.1", "relearn-few@9, all"):
                entry = {"model": model, "attack": name, "amount": step}
                case["measured"].append(entry | {"rows": [row("unlearn", "US", us + more)]})
    (attacks, curves, _) = audit_section(case)["tables"]
    assert [row[1] for row in attacks.rows] == ["as it is", "quantise int4"]
    assert curves.columns == ("Domain", "Attack", "Attacker", "0", "5", "area")
    cells = ("30.0 / 15.0", "60.0 / 45.0", "50.0 / 35.0")
    assert curves.rows == (
        ("d|e", "relearn-few", "0.1", *cells),
        ("d|e", "relearn-few", "9, all", *cells),
    )


def test_generated_answers_have_a_table_of_their_own():
    case = found()
    for model, value in (("vanilla", 99.0), ("unlearned", 21.0), ("oracle", 30.0)):
        more = {"change": -78.0, "beyond": -9.0} if model == "unlearned" else {}
        entry = {"model": model, "attack": "sample", "amount": "8"}
        rows = [row("unlearn", "ROUGE-L", value, **more)]
        case["measured"].append(entry | {"rows": rows})
    (*_, written, _) = audit_section(case)["tables"]
    assert written.title == "Generated answers"
    cells = ("best of 8 answers", "-9.0", "21.0 ± 2.0", "30.0", "99.0", "-78.0", "7")
    assert written.rows == (("d|e", *cells),)


def test_an_older_audit_is_refused_in_words():
    for older in ({}, {"format": AUDIT_FORMAT - 1}):
        case = {key: value for key, value in found().items() if key != "format"} | older
        section = audit_section(case)
        assert section["tables"] == []
        assert "Make it again: grail audit" in section["sentences"][0]
        assert "An older grail made this audit" in audit_markdown(section)


def test_the_section_is_markdown_and_escaped():
    page = audit_markdown(audit_section(found()))
    assert "- Removed: &lt;b>." in page
    assert "d\\|e | quantise int4 | +5.0 [+1.0, +9.0]" in page
    assert audit_markdown(audit_section(None)) == ""


def test_an_audit_of_other_weights_is_not_read(tmp_path):
    assert read_audit(tmp_path) is None
    (tmp_path / "unlearned").mkdir()
    write_json(tmp_path / "audit.json", found())
    stamp = tmp_path / "unlearned" / "stage.json"
    write_json(stamp, {"weights": "y"})
    assert read_audit(tmp_path) == found()
    write_json(tmp_path / "audit.json", {"weights": found()["weights"]})
    assert read_audit(tmp_path) is None
    write_json(tmp_path / "audit.json", found())
    write_json(stamp, {"weights": "z"})
    assert read_audit(tmp_path) is None


def test_an_edited_audit_is_refused(tmp_path):
    (tmp_path / "unlearned").mkdir()
    write_json(tmp_path / "unlearned" / "stage.json", {"weights": "y"})
    (tmp_path / "audit.json").write_text(json.dumps(found()))  # as before files had digests
    with pytest.raises(ValueError, match=r"audit\.json is not as grail wrote it"):
        read_audit(tmp_path)
