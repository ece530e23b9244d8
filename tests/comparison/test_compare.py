"""A whole comparison: once with children played in this process, once with real ones that die."""

import json
import math
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import forks
import pytest

from grail.cli.main import main
from grail.comparison import compare, processes
from grail.comparison.cells import Store
from grail.comparison.collect import best
from grail.comparison.compare import run_comparison
from grail.comparison.grids import edges
from grail.comparison.halves import deciding
from grail.comparison.processes import run_all
from grail.files import write_json, write_text
from grail.progress import NullListener
from grail.reporting.tables import MISSING
from grail.run.lock import alone

TIMES = ("sha256", "seconds", "wall_seconds", "peak_bytes", "resumed", "minutes")
STEEP = {"unlearning": {"optimizer": "sgd", "max_grad_norm": None, "learning_rate": 1e30}}


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def read(tmp_path):
    return json.loads((tmp_path / "out" / "comparison.json").read_text())


def of_methods(words):
    """Method of each `run` among the words of children."""
    files = [Path(name) for command, name, *_ in words if command == "run"]
    folders = files[0].parents[2].glob("*/*") if files else ()
    links = {folder.resolve(): folder for folder in folders if folder.is_symlink()}
    return [links[file.parent.resolve()].parent.name for file in files]


def fails(code):
    """Stand in for ``run_all``: the first job fails."""
    return lambda jobs, _: [(jobs[0], processes.ProcessResult(code, 1.0, 1))]


@pytest.mark.slow
def test_grid_choice_seeds_and_the_second_call(played, comparison, tmp_path, capsys, monkeypatch):
    grid = {"unlearning.learning_rate": [0.001, 0.05]}
    file = comparison({"one": {}, "two": {"preset": "ascent", "grid": {}}}, seeds=[0, 1], grid=grid)
    command = ["compare", str(file), "--json", "--set", "reference=one", "--set", "figures=[]"]
    command += ["--set", "choose.extend=1"]
    assert main(command) == 0
    assert len(played) == 1 + 3 + 2 + 2  # base; two points and the next one; seeds of one; of two
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = read(tmp_path)
    assert said["methods"] == found["methods"]
    points = {p["point"]["unlearning.learning_rate"]: p for p in found["grid"]}
    assert (len(points), found["choose"]["seed"]) == (3, 2)
    best = max(points, key=lambda rate: points[rate]["value"])
    edge = best in (min(points), max(points))
    assert found["methods"][0]["edge"] == ["unlearning.learning_rate"] * edge
    assert [points[rate]["chosen"] for rate in points] == [rate == best for rate in points]
    assert found["methods"][0]["chosen"] == {"unlearning.learning_rate": best}
    (first, second, *_) = found["cells"]
    shown = {row["n"] for row in first["rows"] if (row["part"], row["metric"]) == ("train", "US")}
    assert shown == {2}  # of four rows: the others chose
    assert (first["overrides"].get("unlearning.learning_rate"), second["seed"]) == (best, 1)
    assert {line["method"] for line in found["differences"]} == {"two"}
    assert found["cells"][2]["overrides"]["preset"] == "ascent"
    for kind in ("md", "tex", "csv"):
        assert (tmp_path / "out" / f"comparison.{kind}").stat().st_size
    played.clear()
    assert main(command) == 0
    assert played == []
    assert read(tmp_path) == found
    monkeypatch.setattr(processes, "run_all", fails(1))
    other = [*command, "--set", "base.evaluation.max_new_tokens=5"]
    assert main(other) == 1  # other settings are other cells, which have to be run


def test_cells_of_other_settings_are_kept_and_found_again(played, comparison, tmp_path):
    file = comparison({"one": {"preset": "ascent"}}, figures=[])
    command = ["compare", str(file)]
    link = tmp_path / "out/one/0"
    assert main(command) == 0
    found, first = read(tmp_path), link.resolve()

    def files(folder):
        return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}

    before = files(first)
    assert main([*command, "--set", "base.unlearning.learning_rate=0.02"]) == 0
    changed, second = read(tmp_path), link.resolve()
    assert changed["cells"][0]["config_digest"] != found["cells"][0]["config_digest"]
    assert first != second
    assert files(first) == before != files(second)
    played.clear()
    assert main(command) == 0
    assert "run" not in [words[0] for words in played]
    assert (read(tmp_path)["cells"], link.resolve()) == (found["cells"], first)
    assert main([*command, "--set", "base.unlearning.learning_rate=0.02"]) == 0
    assert "run" not in [words[0] for words in played]
    assert (read(tmp_path)["cells"], link.resolve()) == (changed["cells"], second)


@pytest.mark.parametrize("gone", ["unlearned/adapter_model.safetensors", "unlearned", "scores"])
def test_what_a_finished_cell_has_lost_is_made_again(gone, played, comparison, tmp_path, capsys):
    command = ["compare", str(comparison({"one": {"preset": "ascent"}, "two": {}}, figures=[]))]
    assert main(command) == 0
    found, cell = read(tmp_path), (tmp_path / "out/one/0").resolve()
    before = {f: f.read_bytes() for f in sorted((cell / gone.split("/")[0]).iterdir())}
    shutil.rmtree(cell / gone) if (cell / gone).is_dir() else (cell / gone).unlink()
    played.clear()
    capsys.readouterr()
    assert main(command) == 0
    assert [words[0] for words in played] == ["run"]  # the other cell is left alone
    assert f"one, seed 0: {min(f for f in before if gone in str(f))} is gone. It is made again" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert {f: f.read_bytes() for f in before} == before
    assert without_times(read(tmp_path)) == without_times(found)
    played.clear()
    assert main(command) == 0
    assert played == []


@pytest.mark.slow
def test_candidates_are_not_calibrated_and_the_chosen_one_is(played, comparison, tmp_path):
    """Calibrated after its adoption, a cell holds what a run of its own gives."""
    base = {"evaluation": {"retain_target": 50, "generate": False}}
    grid = {"unlearning.learning_rate": [0.001, 0.05]}
    settings = ["--set", "figures=[]", "--set", "choose.extend=0"]
    file = comparison({"one": {"preset": "ascent"}}, base=base, grid=grid)
    assert main(["compare", str(file), *settings]) == 0
    assert len(played) == 1 + 2 + 1
    one, other = (tmp_path / "out/one/grid").glob("*/evaluation")
    assert not (one / "calibrated.json").exists()
    assert not (other / "calibrated.json").exists()
    (cell,) = read(tmp_path)["cells"]
    assert (cell["wall_seconds"], cell["resumed"]) == (1.0, False)
    best = read(tmp_path)["methods"][0]["chosen"]
    alone = ["--set", f"grid={json.dumps({key: [value] for key, value in best.items()})}"]
    alone += ["--set", f"shared={tmp_path / 'out'}", "--output", str(tmp_path / "alone")]
    shutil.rmtree(tmp_path / "out/.cells")  # or the cells would be found
    assert main(["compare", str(file), *settings, *alone]) == 0
    (own,) = json.loads((tmp_path / "alone/comparison.json").read_text())["cells"]
    of_val = [row for row in own["rows"] if row["part"] == "val"]  # all train rows are shown there
    assert of_val == [row for row in cell["rows"] if row["part"] == "val"] != []
    assert {row["model"] for row in own["rows"]} == {"unlearned", "calibrated"}


@pytest.mark.slow
def test_equal_settings_run_once_in_all_comparisons_that_share_a_base(
    played, comparison, tmp_path, capsys
):
    methods = {"one": {"preset": "ascent"}, "same": {"set": {"unlearning.objective": "ascent"}}}
    methods["same"]["set"] |= {"localization.method": "none", "unlearning.max_token_nll": None}
    methods["same"]["set"] |= {"unlearning.until": None}
    file = comparison(methods, figures=[])
    assert main(["compare", str(file)]) == 0
    assert len(played) == 2  # the base, and one cell for two rows
    one, same = read(tmp_path)["cells"]
    assert (one["rows"], one["config_digest"]) == (same["rows"], same["config_digest"])
    played.clear()
    other = ["compare", str(file), "--set", f"shared={tmp_path / 'out'}"]
    assert main([*other, "--output", str(tmp_path / "second")]) == 0
    assert [words[0] for words in played] == ["evaluate"]  # the base is looked at again
    found = json.loads((tmp_path / "second/comparison.json").read_text())
    assert without_times(found["cells"]) == without_times([one, same])
    assert (tmp_path / "out/one/0").samefile(tmp_path / "second/same/0")
    (tmp_path / "out/one/0/results.json").write_text("{}")  # no longer what was recorded
    shutil.rmtree(tmp_path / "second")
    played.clear()
    assert main([*other, "--output", str(tmp_path / "third")]) == 0
    assert [words[0] for words in played] == ["evaluate", "run"]


def test_what_ended_before_an_interruption_is_taken_by_others(
    played, comparison, tmp_path, monkeypatch
):
    whole = processes.run_all

    def interrupted(jobs, parallel):
        for job, result in whole(jobs, parallel):
            yield job, result
            if job.words[0] == "run":
                raise KeyboardInterrupt

    file = comparison({"one": {"preset": "ascent"}, "two": {}}, figures=[])
    with monkeypatch.context() as patch:
        patch.setattr(processes, "run_all", interrupted)
        assert main(["compare", str(file)]) == 1
    played.clear()
    other = ["--set", f"shared={tmp_path / 'out'}", "--output", str(tmp_path / "second")]
    assert main(["compare", str(file), *other]) == 0
    assert of_methods(played[1:]) == ["two"]


def write_samples(folder, deciding_rows, others, val):
    """A candidate's accuracies on retain rows: of the half that decides, the rest, and val."""
    keys = [f"k{n}" for n in range(6)]
    half = deciding(keys)
    lines = []
    for side in ("unlearn", "retain"):
        place = {"model": "unlearned", "domain": "d", "side": side}
        for key in keys:
            value = (deciding_rows if key in half else others) if side == "retain" else 0.0
            lines.append(place | {"part": "train", "key": key, "accuracy": value})
        lines.append(place | {"part": "val", "key": "v", "accuracy": val})
    write_text(folder / "samples.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def test_the_choice_sees_half_of_the_train_rows_alone(plan):
    """The point that is better there wins, though the other is far better on all other rows."""
    found = plan({"one": {"grid": {"unlearning.learning_rate": [0.05, 0.001]}}})
    write_json(found.output / "vanilla" / "stage.json", {"inputs": "", "weights": ""})
    store, candidates = Store(found.base), found.candidates(found.rows[0])
    write_samples(store.folder(candidates[0].config), 0.1, 1.0, 0.9)
    write_samples(store.folder(candidates[1].config), 0.2, 0.0, 0.0)
    assert best(store, candidates, "Avg").point == {"unlearning.learning_rate": 0.001}
    assert best(store, candidates[:1], "Avg").point == {"unlearning.learning_rate": 0.05}


def play_grid(monkeypatch, success):
    """Stand in for runs: a candidate's success is a function of its rate; return what was run."""
    ran = []

    def run(name, wanted, store, parallel, listener):
        ran.extend(cell.point["unlearning.learning_rate"] for cell in wanted)
        for cell in wanted:
            rate = cell.point["unlearning.learning_rate"]
            write_samples(store.folder(cell.config), success(rate), 0.0, 0.0)
        return {}

    monkeypatch.setattr(compare, "run_cells", run)
    return ran


@pytest.mark.parametrize(
    ("peak", "extend", "ran", "edge"),
    [
        (0.002, 3, [0.001, 0.002, 0.004], False),
        (0.016, 3, [0.001, 0.002, 0.004, 0.008, 0.016, 0.032], False),
        (0.00025, 3, [0.001, 0.002, 0.004, 0.0005, 0.00025, 0.000125], False),
        (9.0, 2, [0.001, 0.002, 0.004, 0.008, 0.016], True),
        (9.0, 0, [0.001, 0.002, 0.004], True),
    ],
)
def test_a_grid_goes_on_until_the_best_point_is_inside(plan, monkeypatch, peak, extend, ran, edge):
    grid = {"unlearning.learning_rate": [0.001, 0.002, 0.004]}
    found = plan({"one": {}, "two": {"grid": {}}}, grid=grid, choose={"extend": extend})
    write_json(found.output / "vanilla" / "stage.json", {"inputs": "", "weights": ""})
    did = play_grid(monkeypatch, lambda rate: 1 / (1 + abs(math.log(rate / peak))))
    store = Store(found.base)
    wide, chosen, failures = compare._choose(found, store, NullListener())
    assert (did, failures, chosen["two"]) == (ran, {}, {})
    assert bool(edges(wide.rows[0].points, chosen["one"])) == edge
    assert wide.rows[1] == found.rows[1]
    monkeypatch.setattr(
        Store,
        "is_finished",
        lambda store, config: (store.folder(config) / "samples.jsonl").exists(),
    )
    assert compare.chosen_so_far(found, store)[1] == chosen  # what `grail plan` counts with


def test_a_grid_ends_where_the_settings_do(plan):
    found = plan({"one": {"grid": {"localization.k_op_ur": [0.5, 1.0]}}})
    assert found.widened({"one": {"localization.k_op_ur": 1.0}}) == found
    wider = found.widened({"one": {"localization.k_op_ur": 0.5}})
    assert [point["localization.k_op_ur"] for point in wider.rows[0].points] == [0.5, 1.0, 0.25]


def test_a_failed_cell_is_recorded_and_the_others_go_on(played, comparison, tmp_path, capsys):
    methods = {"boom": {"preset": "ascent", "set": STEEP}, "fine": {}}
    file = comparison(methods, figures=[])
    assert main(["compare", str(file)]) == 1
    shown = capsys.readouterr()
    assert "boom, seed 0 failed" in shown.err
    assert re.search(rf"boom +{MISSING} +{MISSING}", shown.out)
    assert "Failed cells, which no mean includes: boom (1)." in shown.out
    boom, fine = read(tmp_path)["cells"]
    assert boom["failed"].startswith("grail: stopped: ")
    assert fine["rows"]
    played.clear()
    assert main(["compare", str(file)]) == 1
    assert of_methods(played) == ["boom"]


def test_a_grid_whose_points_all_fail(played, comparison, tmp_path, capsys):
    grid = {"unlearning.learning_rate": [1e30, 2e30]}
    methods = {"boom": {"preset": "ascent", "set": STEEP, "grid": grid}, "fine": {}}
    assert main(["compare", str(comparison(methods, figures=[])), "--json"]) == 1
    found = read(tmp_path)
    assert [method["n_seeds"] for method in found["methods"]] == [0, 1]
    assert found["methods"][0]["chosen"] is None


def test_wrong_settings_of_any_method_are_told_before_anything_runs(played, comparison, capsys):
    methods = {
        "fine": {},
        "a": {"set": {"unlearning": {"objective": "ascend"}}},
        "b": {"set": {"localization": {"method": "graill"}}},
    }
    assert main(["compare", str(comparison(methods))]) == 2
    err = capsys.readouterr().err
    assert "methods.a: unlearning.objective: 'ascend' is unknown" in err
    assert "methods.b: localization.method: 'graill' is unknown" in err
    assert played == []


@pytest.mark.parametrize("command", ["compare", "validate", "plan"])
def test_every_command_names_the_method_whose_settings_are_wrong(command, comparison, capsys):
    file = comparison({"a": {}})
    assert main([command, str(file), "--set", "methods.a.preset=graill"]) == 2
    assert "methods.a: " in capsys.readouterr().err


def test_a_run_and_a_comparison_keep_out_of_each_others_folders(
    played, comparison, tiny_config, tmp_path, capsys
):
    file, run = comparison({"a": {}}, figures=[]), tiny_config()
    assert main(["compare", str(file)]) == 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("made_with: {}\n")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}
    capsys.readouterr()
    assert main(["run", str(run), "--output", str(tmp_path / "out")]) == 2
    assert "is a comparison's" in capsys.readouterr().err
    assert main(["compare", str(file), "--output", str(tmp_path / "run")]) == 2
    assert "is a run's" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in before} == before


def test_a_comparison_is_valid_by_its_cells(comparison, capsys, tmp_path):
    grid = {"unlearning.learning_rate": [0.001, 0.05]}
    file = comparison({"a": {"grid": grid}, "b": {}}, seeds=[0, 1, 2])
    assert main(["validate", str(file)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["a: 5 runs", "b: 3 runs"]  # no candidate is reported
    assert f"It would write to {tmp_path / 'out'}." in shown[-1]
    assert main(["validate", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == {"a": 5, "b": 3}
    assert not (tmp_path / "out").exists()


def test_the_error_of_a_base_has_one_prefix(played, comparison, capsys):
    unknown = {"model": {"name": "smollm2-135n"}}
    assert main(["compare", str(comparison({"a": {}}, base=unknown))]) == 2
    err = capsys.readouterr().err
    assert "model.name" in err
    assert "grail: error: grail" not in err


def test_a_base_that_fails_is_an_end(comparison, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "run_all", fails(1))
    assert main(["compare", str(comparison({"a": {}}))]) == 1
    assert "the base run failed (exit code 1)" in capsys.readouterr().err
    monkeypatch.setattr(processes, "run_all", fails(2))
    assert main(["compare", str(comparison({"a": {}}))]) == 2


def test_without_matplotlib_all_tables_are_there(played, comparison, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["compare", str(comparison({"a": {}}))]) == 0
    shown = capsys.readouterr()
    assert "figures need matplotlib: pip install 'grail-unlearning[plots]'" in shown.err.replace(
        "\n", " "
    )
    assert (tmp_path / "out" / "comparison.md").exists()
    assert not (tmp_path / "out" / "figures").exists()


@pytest.mark.slow
def test_a_method_with_a_vanilla_model_of_its_own_is_marked(played, plan, tmp_path):
    found = run_comparison(
        plan({"same": {}, "own": {"set": {"teach": {"epochs": 2}}}}), NullListener()
    )
    assert [cell["own_vanilla"] for cell in found["cells"]] == [False, True]
    assert found["vanilla"]["rows"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only there children die with their parent")
def test_killed_in_the_middle_it_goes_on_to_the_same_end(played, comparison, tmp_path, capsys):
    """Processes, two at a time; what is left after their death is played in this one."""
    methods = {"grail": {"preset": "grail"}, "ascent": {"preset": "ascent"}}
    shared = {"shared": str(tmp_path / "base")}  # made by neither
    file = comparison(methods, reference="grail", parallel=2, figures=["heatmap"], **shared)
    folder = tmp_path / "killed"
    assert main(["compare", str(file), "--json"]) == 0
    assert len(played) == 3
    whole = without_times(read(tmp_path))
    heatmap = (tmp_path / "out/figures/heatmap.svg").read_bytes()
    shutil.rmtree(tmp_path / "base/.cells")  # or its cells would be found
    played.clear()
    command, log = ["compare", str(file), "--output", str(folder)], tmp_path / "killed.log"
    process = forks.start(main, command, log=log)
    latest = time.monotonic() + 120
    while not list(folder.glob("*/*/unlearned")):  # one cell has come this far
        assert time.monotonic() < latest, log.read_text()
        time.sleep(0.01)
    process.kill()
    assert forks.exit_code(process) == -signal.SIGKILL
    for lock in (tmp_path / "base/.cells").glob("*/.lock"):
        _wait_for(lock)
    assert not (folder / "comparison.json").exists()
    assert main(["compare", str(file), "--output", str(folder), "--json"]) == 0
    assert 0 < len(played) <= 2  # not the base
    played.clear()
    assert main(["compare", str(file), "--output", str(folder), "--json"]) == 0
    assert played == []
    killed = json.loads((folder / "comparison.json").read_text())
    assert without_times(killed) == whole
    assert (folder / "figures/heatmap.svg").read_bytes() == heatmap


def _wait_for(lock):
    """Return when no process holds the lock: children die with their parent, in a moment."""
    import fcntl

    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def test_comparisons_can_share_their_base(played, comparison, tmp_path):
    shared = ["--set", f"shared={tmp_path / 'base'}", "--set", "figures=[]"]
    file = comparison({"one": {}})
    assert main(["compare", str(file), *shared]) == 0
    assert main(["compare", str(file), *shared, "--output", str(tmp_path / "other")]) == 0
    source = tmp_path / "base" / "vanilla" / "adapter_model.safetensors"
    for output in ("out", "other"):
        assert (tmp_path / output / "one" / "0" / "vanilla" / source.name).samefile(source)
        assert not (tmp_path / output / "vanilla").exists()
    one, other = (
        json.loads((tmp_path / output / "comparison.json").read_text())
        for output in ("out", "other")
    )
    assert without_times(one["methods"]) == without_times(other["methods"])


@pytest.mark.slow
def test_a_shared_base_that_another_comparison_has_remade_is_made_again(
    played, comparison, tmp_path
):
    shared = ["--set", f"shared={tmp_path / 'base'}", "--set", "figures=[]"]
    file = comparison({"one": {}})
    assert main(["compare", str(file), *shared]) == 0
    other = ["--set", "base.teach.epochs=2", "--output", str(tmp_path / "other")]
    assert main(["compare", str(file), *shared, *other]) == 0
    played.clear()
    assert main(["compare", str(file), *shared]) == 0
    assert [words[0] for words in played] == ["evaluate"]  # the base, whose cells are found again
    stamp = json.loads((tmp_path / "base" / "vanilla" / "stage.json").read_text())
    assert json.loads((tmp_path / "out/one/0/vanilla/stage.json").read_text()) == stamp


def test_a_cell_of_an_earlier_version_is_refused(played, comparison, tmp_path, capsys):
    file = comparison({"a": {}}, figures=[])
    assert main(["compare", str(file)]) == 0
    old = tmp_path / "out" / "a" / "0" / "results.json"
    old.parent.unlink()
    old.parent.mkdir()
    old.write_text("{}")
    (old.parent / "config.yaml").write_text("made_with: {}")
    assert main(["compare", str(file)]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"output: {old.parent} is not a link to a cell" in message
    assert "Choose another --output" in message
    assert old.read_text() == "{}"


def test_a_cell_at_which_another_comparison_is_at_work_fails_alone(
    played, comparison, tmp_path, capsys
):
    file = comparison({"one": {"preset": "ascent"}, "two": {}}, figures=[])
    assert main(["compare", str(file)]) == 0
    busy = (tmp_path / "out/one/0").resolve()
    results = busy / "results.json"
    before = results.read_bytes()
    results.unlink()
    with alone(busy):
        assert main(["compare", str(file)]) == 1
    assert "one, seed 0 failed (not started): output: another grail is at work" in " ".join(
        capsys.readouterr().err.split()
    )
    assert [("failed" in cell) for cell in read(tmp_path)["cells"]] == [True, False]
    assert main(["compare", str(file)]) == 0
    assert results.read_bytes() == before


OWN = """
import torch
from grail.artifacts import Mask
from grail.model.answers import mean_per_row

def gentle(answers):
    return -mean_per_row(answers.nll.clamp(max=2.0), answers.lengths)

def nothing(evidence):
    return Mask({n: torch.zeros(s, dtype=torch.bool) for n, s in evidence.shapes.items()})
"""


@pytest.mark.slow
def test_an_objective_and_a_localizer_of_ones_own_reach_the_children(
    played, comparison, tmp_path, monkeypatch, capsys
):
    """The cell is a process; the base, which has neither, is played in this one.

    Files of the current folder, named like libraries and like grail, do not.
    """
    (tmp_path / "here").mkdir()
    for name in ("grail", "numpy", "runpy", "secrets", "torch", "yaml"):
        (tmp_path / "here" / f"{name}.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path / "here")
    play = processes.run_all

    def base_played(jobs, parallel):
        jobs = list(jobs)
        return (play if jobs[0].words[0] == "evaluate" else run_all)(jobs, parallel)

    monkeypatch.setattr(processes, "run_all", base_played)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own_methods.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path / "own")
    path = os.pathsep.join((os.environ["PYTHONPATH"], str(tmp_path / "own")))
    monkeypatch.setenv("PYTHONPATH", path)
    names = {
        "unlearning.objective": "own_methods:gentle",
        "localization.method": "own_methods:nothing",
    }
    file = comparison({"own": {"set": names}}, figures=[])
    assert main(["compare", str(file)]) == 0
    assert [words[0] for words in played] == ["evaluate"]
    assert [cell.get("failed") for cell in read(tmp_path)["cells"]] == [None]
    cell = tmp_path / "out" / "own" / "0"
    lines = [json.loads(line) for line in (cell / "train.jsonl").read_text().splitlines()]
    assert "unlearn/gentle" in lines[0]["terms"]
    assert json.loads((cell / "localization.json").read_text())["model"]["frozen"] == 0
    names["unlearning.objective"] = "own_methods:rough"
    assert main(["compare", str(comparison({"own": {"set": names}}))]) == 2
    assert "has no function 'rough'" in capsys.readouterr().err
