"""The tables of an audit show what its rows say."""

import json

from grail.config.audit import Audit
from grail.reporting.audit.tables import (
    audit_markdown,
    audit_section,
    read_audit,
    strongest_table,
)
from grail.reporting.tables import MISSING


def row(side, metric, value, **more):
    place = {"domain": "general" if side == "general" else "d|e", "side": side}
    return place | {"part": "train", "metric": metric, "value": value, "n": 7, "error": 2.0} | more


def found():
    plain = [row("unlearn", "US", 3.0), row("retain", "RS", 98.0), row("general", "NLL", 2.5)]
    after = [
        row("unlearn", "US", 60.0, change=-31.0, change_error=4.0, beyond=-5.0),
        row("retain", "RS", 81.5),
    ]
    entries = [("vanilla", "plain", "plain", plain), ("unlearned", "quantise", "int4", after)]
    names = ("model", "attack", "amount", "rows")
    return {
        "measured": [dict(zip(names, entry, strict=True)) for entry in entries],
        "weights": {"vanilla": "x", "unlearned": "y"},
        "settings": Audit().model_dump(mode="json"),
        "sentences": ["Removed: <b>."],
    }


def test_every_model_and_attack_has_a_line():
    attacks, harm = audit_section(found())["tables"]
    assert attacks.rows == (
        ("d|e", "vanilla", MISSING, "97.0 ± 2.0", MISSING, MISSING, "7"),
        ("d|e", "unlearned", "quantise int4", "40.0 ± 2.0", "+31.0 ± 4.0", "+5.0", "7"),
    )
    assert harm.columns == ("Model", "Attack", "RS d|e", "NLL general")
    assert harm.rows == (
        ("vanilla", MISSING, "98.0", "2.50"),
        ("unlearned", "quantise int4", "81.5", MISSING),
    )


def test_the_section_is_markdown_and_escaped():
    page = audit_markdown(audit_section(found()))
    assert "- Removed: &lt;b>." in page
    assert "d\\|e | unlearned | quantise int4" in page
    assert audit_markdown(audit_section(None)) == ""


def test_the_strongest_of_each_attack_is_shown():
    case = found()
    for amount, us in (("int8", 70.0), ("int2", 65.0)):
        rows = [row("unlearn", "US", us, change=1.0, change_error=1.0)]
        entry = {"model": "unlearned", "attack": "quantise", "amount": amount, "rows": rows}
        case["measured"].append(entry)
    assert [line[1] for line in strongest_table(case).rows] == ["quantise int4"]
    case["measured"][-1]["rows"][0]["value"] = 10.0
    assert [line[1:3] for line in strongest_table(case).rows] == [("quantise int2", "90.0 ± 2.0")]


def test_an_audit_of_other_weights_is_not_read(tmp_path):
    assert read_audit(tmp_path) is None
    (tmp_path / "unlearned").mkdir()
    (tmp_path / "audit.json").write_text(json.dumps(found()))
    stamp = tmp_path / "unlearned" / "stage.json"
    stamp.write_text('{"weights": "y"}')
    assert read_audit(tmp_path) == found()
    (tmp_path / "audit.json").write_text(json.dumps({"weights": found()["weights"]}))
    assert read_audit(tmp_path) is None
    (tmp_path / "audit.json").write_text(json.dumps(found()))
    stamp.write_text('{"weights": "z"}')
    assert read_audit(tmp_path) is None
