"""The table of general ability: values with errors, differences with their sign."""

import json

import pytest

from grail.errors import InputError
from grail.reporting.run.general import general_table, read_general
from grail.reporting.tables import MISSING


def row(task, metric="acc", n=40, stderr=7.94):
    return {
        "task": task,
        "metric": metric,
        "n": n,
        "vanilla": {"value": 42.5, "stderr": stderr},
        "unlearned": {"value": 37.5, "stderr": stderr},
        "difference": {"value": -5.0, "stderr": stderr and 3.49},
    }


def found(*rows):
    average = {key: rows[0][key] for key in ("vanilla", "unlearned", "difference")}
    return {
        "inputs": "",
        "harness": "lm-eval 1.2",
        "tasks": list(rows),
        "average": {"metric": "acc", "tasks": len({r["task"] for r in rows}), **average},
    }


def test_a_row_per_task_and_metric_then_the_average():
    table = general_table(found(row("arc"), row("arc", "acc_norm"), row("race", n=1045)))
    assert table.rows[0] == ("arc", "acc", "40", "42.5 ± 7.9", "37.5 ± 7.9", "-5.0 ± 3.5")
    assert [r[:3] for r in table.rows[1:]] == [
        ("arc", "acc_norm", "40"),
        ("race", "acc", "1,045"),
        ("average of 2", "acc", ""),
    ]
    assert table.note.endswith("By lm-eval 1.2.")


def test_one_task_is_its_own_average_and_one_item_has_no_error():
    (only,) = general_table(found(row("arc", n=1, stderr=None))).rows
    assert only[3:] == tuple(f"{value} ± {MISSING}" for value in (42.5, 37.5, -5.0))


def test_a_gain_has_a_sign():
    better = row("arc") | {"difference": {"value": 2.5, "stderr": 1.0}}
    assert general_table(found(better)).rows[0][-1] == "+2.5 ± 1.0"


def test_nothing_asked_is_no_table(tmp_path):
    assert read_general(tmp_path) == {}
    table = general_table({})
    assert (table.rows, table.note) == ((), "")


def test_the_file_is_read_and_damage_is_said(tmp_path):
    (tmp_path / "general.json").write_text(json.dumps(found(row("arc"))))
    assert read_general(tmp_path) == found(row("arc"))
    (tmp_path / "general.json").write_text("{")
    with pytest.raises(InputError, match=r"general\.json cannot be read"):
        read_general(tmp_path)
