"""The forecast of a comparison: every run counted once, what is finished left out."""

import json

import pytest

from grail.cli.main import main
from grail.cli.plan_comparison import forecast_comparison
from grail.progress import NullListener
from grail.run.forecast.forecast import plan_of
from grail.run.forecast.machine import measure
from grail.run.inputs import read_inputs


def forecast_of(plan):
    return forecast_comparison(plan, NullListener(silent=True))


def add(ranges):
    return tuple(map(sum, zip(*ranges, strict=True)))


def test_every_run_counts_once(plan):
    grid = {"unlearning.learning_rate": [0.001, 0.05, 0.1]}
    methods = {"one": {"grid": grid}, "two": {}, "same": {}, "own": {"set": {"teach.epochs": 2}}}
    found = forecast_of(plan(methods, seeds=[0, 1], parallel=2))
    lines = {line.name: line for line in found.lines}
    assert {name: line.cells for name, line in lines.items()} == {
        "base": 1,
        "one": 3 + 2,  # no candidate is a reported cell
        "two": 2,
        "same": 0,  # equal settings are run once
        "own": 2,
    }
    assert all(line.left == line.cells for line in found.lines)
    assert found.total["seconds"] == pytest.approx(add(line.seconds for line in found.lines))
    peak = max(line.memory[0] for line in found.lines[1:])
    assert found.total["memory"][0] == 2 * peak  # two at once
    assert lines["own"].each[0] > lines["two"].each[0]  # trains and scores a vanilla model too


def test_a_run_is_the_base_and_a_cell(plan, monkeypatch):
    own = plan({"a": {}})
    inputs = read_inputs(own.base)
    found = measure(own.base, inputs, NullListener(silent=True))
    monkeypatch.setattr("grail.cli.plan_comparison.measure", lambda *_: found)  # of both
    base, cell = forecast_of(own).lines
    run = add(stage.seconds for stage in plan_of(own.base, inputs, found).stages)
    assert min(base.each[0], cell.each[0]) > 0
    start = plan_of(own.base, inputs, found).stages[0].seconds  # of two processes
    assert add([base.each, cell.each]) == pytest.approx(add([run, start]))
    assert (base.seconds, cell.seconds) == (base.each, cell.each)


def test_a_finished_grid_is_counted_at_the_point_it_chose(played, comparison, plan, tmp_path):
    grid = {"unlearning.learning_rate": [0.5, 1e-7]}  # the first forgets what is to be kept
    methods = {"one": {"preset": "ascent", "grid": grid}}
    more = {"seeds": [0, 1], "figures": [], "choose": {"seed": 2, "extend": 0}}
    assert main(["compare", str(comparison(methods, **more))]) == 0
    chosen = json.loads((tmp_path / "out" / "comparison.json").read_text())["methods"][0]["chosen"]
    assert chosen == {"unlearning.learning_rate": 1e-7}, "not the grid's first point"
    found = forecast_of(plan(methods, **more))
    assert [(line.cells, line.left) for line in found.lines] == [(1, 0), (4, 0)]
    assert (found.total["seconds"], found.total["memory"]) == ((0, 0), (0, 0))
    again = forecast_of(plan(methods, **more | {"seeds": [0, 1, 3]}))
    assert [line.left for line in again.lines] == [0, 1]
    assert again.total["memory"] == again.lines[1].memory  # the base is made: its peak is past


def test_what_is_finished_is_left_out(played, comparison, plan, tmp_path, capsys):
    file = comparison({"a": {}, "b": {"preset": "ascent"}}, seeds=[0, 1], figures=[])
    assert main(["compare", str(file)]) == 0
    more = {"a": {}, "b": {"preset": "ascent"}, "c": {"preset": "no-mask"}}
    found = forecast_of(plan(more, seeds=[0, 1], figures=[]))
    assert [line.left for line in found.lines] == [0, 0, 0, 2]
    assert found.total["seconds"] == found.lines[-1].seconds
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(["plan", str(file)]) == 0
    shown = capsys.readouterr().out
    for piece in ("base", "Runs", "side by side", "still to do: "):
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
