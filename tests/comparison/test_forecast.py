"""The forecast of a comparison: every run counted once, what is finished left out."""

import json

import pytest

from grail.cli import main
from grail.comparison.forecast import forecast
from grail.plan import measure
from grail.plan.plan import make_plan
from grail.preparation import prepare
from grail.progress import Nobody


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(measure, "SIDE", 16)
    monkeypatch.setattr(measure, "LEAST", 1e-4)


def forecast_of(plan):
    return forecast(plan, Nobody(silent=True))


def add(ranges):
    return tuple(map(sum, zip(*ranges, strict=True)))


def test_every_run_counts_once(plan):
    grid = {"unlearning.learning_rate": [0.001, 0.05, 0.1]}
    methods = {"one": {"grid": grid}, "two": {}, "same": {}, "own": {"set": {"vanilla.epochs": 2}}}
    found = forecast_of(plan(methods, seeds=[0, 1], parallel=2))
    lines = {line.name: line for line in found.lines}
    assert {name: line.cells for name, line in lines.items()} == {
        "base": 1,
        "one": 3 + 1,  # the chosen candidate is the cell of seed 0
        "two": 2,
        "same": 0,  # equal settings are run once
        "own": 2,
    }
    assert all(line.left == line.cells for line in found.lines)
    assert found.seconds == pytest.approx(add(line.seconds for line in found.lines))
    peak = max(line.memory[0] for line in found.lines[1:])
    assert found.memory[0] == 2 * peak  # two at once
    assert lines["own"].each[0] > lines["two"].each[0]  # trains and scores a vanilla model too


def test_a_run_is_the_base_and_a_cell(plan):
    own = plan({"a": {}})
    base, cell = forecast_of(own).lines
    stages = {s.name: s.operations for s in make_plan(own.base, prepare(own.base), Nobody()).stages}
    assert stages.keys() == {"vanilla", "score", "localize", "unlearn", "evaluate"}
    assert min(base.each[0], cell.each[0]) > 0
    assert base.seconds == pytest.approx(base.each)
    assert cell.seconds == pytest.approx(cell.each)


def test_what_is_finished_is_left_out(played, comparison, plan, tmp_path, capsys):
    file = comparison({"a": {}, "b": {"preset": "ascent"}}, seeds=[0, 1], figures=[])
    assert main(["compare", str(file)]) == 0
    more = {"a": {}, "b": {"preset": "ascent"}, "c": {"preset": "no-mask"}}
    found = forecast_of(plan(more, seeds=[0, 1], figures=[]))
    assert [line.left for line in found.lines] == [0, 0, 0, 2]
    assert found.seconds == found.lines[-1].seconds
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(["plan", str(file)]) == 0
    shown = capsys.readouterr().out
    for piece in ("base", "Runs", "side by side", "still to do: under 2 s"):
        assert piece in shown
    assert main(["plan", str(file), "--set", "methods.c.seeds=[]"]) == 2
    comparison({"a": {}, "b": {"preset": "ascent"}}, seeds=[0, 1], figures=[])
    assert main(["plan", str(file)]) == 0
    assert "still to do: nothing" in capsys.readouterr().out
    assert main(["plan", str(file), "--json", "--set", "seeds=[0, 1, 2]"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [line["left"] for line in told["lines"]] == [0, 1, 1]
    assert told["output"] == str(tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
