"""Figures of an audit follow from what was measured on each row, or are named."""

import json

import pytest

from grail.audit.audit import audit_run
from grail.audit.founded import unfounded
from grail.progress import NullListener
from grail.run import manifest


@pytest.fixture
def audited(copied, runs):
    folder = copied("run")
    attacks = "audit.attacks=[quantise, relearn]"
    audit_run(folder, runs["oracle"], [attacks], NullListener(silent=True))
    return folder


def test_an_edited_figure_is_named_whatever_its_digest(audited):
    assert unfounded(audited) == []
    path = audited / "audit.json"
    whole = json.loads(path.read_text())
    for entry in whole["measured"][:: len(whole["measured"]) // 4]:
        row = entry["rows"][0]
        row["value"] += 1
        path.write_text(json.dumps(whole))
        place = " ".join(entry[key] for key in ("model", "attack", "amount"))
        assert unfounded(audited) == [f"audit.json: {place} does not follow from audit/."]
        row["value"] -= 1
    manifest.record_purged(audited, ["audit"])
    path.write_text(json.dumps(whole | {"measured": []}))
    assert unfounded(audited) is None  # nothing is left to compare with
    path.unlink()
    assert unfounded(audited) is None
