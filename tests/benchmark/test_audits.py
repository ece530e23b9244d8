"""The table of audits: its columns are attacks that there are, and it tells models apart."""

import json

import audits
import pytest

from grail.audit.attacks.registry import ATTACKS, RELEARNINGS


def entry(model, attack, amount, us, beyond=None):
    row = {"domain": "d", "side": "unlearn", "part": "train", "metric": "US", "value": us, "n": 4}
    general = row | {"domain": "general", "side": "general", "part": "val", "metric": "NLL"}
    more = {} if beyond is None else {"beyond": -beyond}
    rows = [row | more, general | {"value": 3.0}]
    return {"model": model, "attack": attack, "amount": amount, "rows": rows}


def audited(method, oracle, *measured):
    settings = {"outcome": "removed", "passed": True, "oracle": oracle}
    return {"method": method, "measured": list(measured), **settings}


def test_every_column_is_an_attack():
    named = {attack for attacks in audits.COLUMNS.values() for attack in attacks}
    assert named <= {*ATTACKS, *RELEARNINGS}


def test_the_strongest_amount_is_shown_and_how_far_above_the_oracle():
    found = [
        audited(
            "grail",
            "given",
            entry("vanilla", "plain", "plain", 1.0),
            entry("unlearned", "plain", "plain", 90.0, beyond=-2.0),
            entry("unlearned", "quantise", "int8", 88.0),
            entry("unlearned", "quantise", "int4", 80.0, beyond=7.0),
        ),
        audited("exact", "itself", entry("unlearned", "plain", "plain", 88.0)),
    ]
    vanilla, grail, exact = audits.table(found).rows
    assert (vanilla[0], vanilla[2]) == ("vanilla", "99.0")
    assert grail[2:4] == ("10.0 (-2)", "20.0 (+7)")
    assert grail[-2:] == ("3.00", "removed, passed")
    assert exact[-1] == "is the oracle"


def test_several_seeds_are_refused(tmp_path):
    cells = [{"method": "exact", "folder": f"exact/{seed}"} for seed in (0, 1)]
    (tmp_path / "comparison.json").write_text(json.dumps({"cells": cells}))
    with pytest.raises(SystemExit, match="one seed for each method"):
        audits.main([str(tmp_path)])
