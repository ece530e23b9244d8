"""The files beside comparison.json."""

import importlib.util
import sys
from pathlib import Path

import pytest

from grail.errors import InputError
from grail.files import write_json
from grail.reporting.comparison.files import write_all

_PLACE = Path(__file__).with_name("test_tables.py")
_SPEC = importlib.util.spec_from_file_location("comparison_examples", _PLACE)
EXAMPLES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(EXAMPLES)

JACCARD = {"jaccard": {"names": ["a.unlearn"], "k": 0.1, "values": [[1.0]]}}


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}


def test_tables_and_figures(tmp_path):
    for cell, content in (("none/0", {}), ("grail/0", JACCARD)):
        (tmp_path / cell).mkdir(parents=True)
        write_json(tmp_path / cell / "localization.json", content)
    cells = [{"method": "m", "folder": f, "rows": []} for f in ("lost/0", "none/0", "grail/0")]
    found = EXAMPLES.comparison(EXAMPLES.method("grail"), cells=cells, figures=["heatmap"])
    assert write_all(found, tmp_path) == []
    assert {"comparison.html", "comparison.md", "comparison.tex", "comparison.csv"} < names(
        tmp_path
    )
    assert "figures/heatmap.svg" in names(tmp_path)


def test_without_matplotlib_the_tables_are_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = EXAMPLES.comparison(EXAMPLES.method("grail"))
    (remark,) = write_all(found, tmp_path)
    assert "pip install" in remark
    assert names(tmp_path) == {
        "comparison.html",
        "comparison.md",
        "comparison.tex",
        "comparison.csv",
    }
    assert write_all(found | {"figures": []}, tmp_path) == []


@pytest.mark.parametrize("wrong", [None, 1, "x", [1], {"a": 1}])
def test_a_comparison_of_the_wrong_shape_is_named_and_replaces_nothing(wrong, tmp_path):
    found = EXAMPLES.comparison(EXAMPLES.method("grail"), figures=[])
    write_all(found, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for key in ("methods", "settings"):
        with pytest.raises(InputError, match=r"comparison\.json is damaged"):
            write_all(found | {key: wrong}, tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_cell_of_the_csv_is_a_formula(tmp_path):
    names = ["=1+1", "+1", "-1", "@SUM(A1)"]
    write_all(EXAMPLES.comparison(*map(EXAMPLES.method, names), figures=[]), tmp_path)
    lines = (tmp_path / "comparison.csv").read_text().splitlines()[1:]
    cells = {line.split(",")[0] for line in lines}
    assert cells == {f"'{name}" for name in names}
