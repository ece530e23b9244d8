"""Figures: which are drawn from what, labelled, and the same bytes every time."""

import importlib.util
import sys
from pathlib import Path

import pytest

from grail.errors import InputError
from grail.reporting.comparison import figures

_PLACE = Path(__file__).with_name("test_tables.py")
_SPEC = importlib.util.spec_from_file_location("comparison_examples", _PLACE)
EXAMPLES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(EXAMPLES)

pytest.importorskip("matplotlib")
NAMES = ["privacy.unlearn", "privacy.retain"]
MATRIX = [[1.0, 0.25], [0.25, 1.0]]


def localization(layers=0):
    own = {f"model.layers.{n}": {"entries": 4, "jaccard": MATRIX} for n in range(layers)}
    return {"jaccard": {"names": NAMES, "k": 0.1, "values": MATRIX}, "layers": own}


def cell(method, seed, us):
    rows = [
        {"model": "unlearned", "domain": "privacy", "part": part, "metric": metric, "value": value}
        for part in ("train", "val")
        for metric, value in (("US", us), ("RS", 60.0))
    ]
    return {"method": method, "seed": seed, "rows": rows}


def comparison(**more):
    varied = [
        EXAMPLES.method(f"k, k={k}", 50.0 + k, of="k", varied={"localization.k": k})
        for k in (1, 2, 5)
    ]
    cells = [cell("grail", seed, 70.0 + seed) for seed in (0, 1)]
    cells.append({"method": "grail", "seed": 2, "failed": "NaN"})
    return EXAMPLES.comparison(EXAMPLES.method("grail"), *varied, cells=cells, **more)


def test_every_figure_in_two_formats_and_the_same_bytes_again(tmp_path):
    first = figures.draw(comparison(), tmp_path / "one", localization(3))
    assert [file.name for file in first] == [
        "tradeoff-train.svg",
        "tradeoff-val.svg",
        "heatmap.svg",
        "sweep-k.svg",
    ]
    again = figures.draw(comparison(), tmp_path / "two", localization(3))
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert b"<dc:date>" not in one.read_bytes()
        assert one.with_suffix(".png").stat().st_size


def test_only_what_is_asked_for_and_known(tmp_path):
    assert figures.draw(comparison(figures=[]), tmp_path) == []
    assert figures.draw(comparison(figures=["heatmap"]), tmp_path) == []
    plain = EXAMPLES.comparison(EXAMPLES.method("grail"), figures=["sweep"])
    assert figures.draw(plain, tmp_path) == []
    two_settings = EXAMPLES.method("k", of="k", varied={"a": 1, "b": 2})
    assert figures.sweeps(EXAMPLES.comparison(two_settings)) == {}


def test_tradeoff_has_points_of_seeds_and_a_mean():
    figure = figures.tradeoff(comparison(), "val")
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("US on val rows (%)", "RS on val rows (%)")
    offsets = [collection.get_offsets().tolist() for collection in axis.collections]
    assert offsets == [[[2.0, 90.0]], [[70.0, 60.0], [71.0, 60.0]], [[70.5, 60.0]]]
    assert axis.get_legend_handles_labels()[1] == ["vanilla", "grail"]


def test_heatmap_writes_its_numbers():
    figure = figures.heatmap(localization(2))
    whole = figure.subfigs[0].axes[0]
    assert [text.get_text() for text in whole.texts] == ["1.00", "0.25", "0.25", "1.00"]
    assert [label.get_text() for label in whole.get_yticklabels()] == NAMES
    small = [axis for axis in figure.subfigs[1].axes if axis.get_visible()]
    assert [axis.get_title() for axis in small] == ["0", "1"]
    assert len(figures.heatmap(localization()).subfigs) == 1


def test_sweep_draws_against_the_varied_setting():
    ((method, rows),) = figures.sweeps(comparison()).items()
    figure = figures.sweep(method, rows)
    train, val = figure.axes
    assert (train.get_xlabel(), train.get_ylabel()) == ("localization.k", "success (%)")
    line = train.lines[0]
    assert line.get_xdata().tolist() == [1, 2, 5]
    assert line.get_ydata().tolist() == [55.5, 56.0, 57.5]
    assert val.get_title() == "val rows"


def test_sweep_over_words():
    rows = [
        EXAMPLES.method(f"k, {word}", varied={"localization.method": word}) for word in ("a", "b")
    ]
    (train, _) = figures.sweep("k", rows).axes
    assert [label.get_text() for label in train.get_xticklabels()] == ["a", "b"]


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install 'grail-unlearning"):
        figures.draw(comparison(), tmp_path)


def test_a_name_for_a_file_is_one(tmp_path):
    odd = [
        EXAMPLES.method(f"a/b, {k}", of="../a b", varied={"x.k": k}, train={}, val={})
        for k in (1, 2)
    ]
    (file,) = figures.draw(EXAMPLES.comparison(*odd, figures=["sweep"]), tmp_path)
    assert file.parent == tmp_path
