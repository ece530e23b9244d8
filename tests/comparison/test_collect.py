"""comparison.json from files made by hand: every number can be worked out."""

import json

import pytest

from grail.comparison import cells
from grail.comparison.collect import collect
from grail.files import dump_yaml, read_json, write_json
from grail.results import Result, make_results, write_results


def rows(model, us, rs, part):
    return [
        Result(model, "privacy", "unlearn", part, "US", us, 2),
        Result(model, "privacy", "unlearn", part, "NLL", us / 10, 2),
        Result(model, "privacy", "retain", part, "RS", rs, 2),
        Result(model, "privacy", "retain", part, "NLL", 0.5, 2),
    ]


def write(cell, us, calibrated=None, git="first"):
    """A finished cell: US as given, RS 50 on train and 40 on val."""
    cell.folder.mkdir(parents=True)
    found, lines = [Result("unlearned", "general", "general", "train", "NLL", 3.0, 1)], []
    models = {"vanilla": 5.0, "unlearned": us} | ({"calibrated": calibrated} if calibrated else {})
    for model, value in models.items():
        for part, rs in (("train", 50.0), ("val", 40.0)):
            found += rows(model, value, rs, part)
            for side, accuracy in (("unlearn", 1 - value / 100), ("retain", rs / 100)):
                place = {"model": model, "domain": "privacy", "side": side, "part": part}
                lines += [place | {"key": f"{side}.{n}", "accuracy": accuracy} for n in "ab"]
    write_results(cell.folder / "results.json", make_results(found, {"frozen": 7}, ""))
    (cell.folder / "samples.jsonl").write_text("".join(json.dumps(li) + "\n" for li in lines))
    steps = "".join(json.dumps({"step": n, "seconds": s}) + "\n" for n, s in enumerate((1, 3, 20)))
    (cell.folder / "train.jsonl").write_text(steps)
    measured = {"seconds": 60.0, "peak_bytes": 100 + int(us), "resumed": False}
    write_json(cell.folder / cells.RECORD, measured)
    about = {"grail": "1", "python": "3", "packages": {"torch": "2"}, "git": git, "data": {}}
    (cell.folder / "config.yaml").write_text(dump_yaml({"seed": 0, "made_with": about}))


@pytest.fixture
def made(plan):
    found = plan(
        {"one": {}, "two": {"set": {"unlearning": {"epochs": 5}}}, "lost": {}},
        seeds=[0, 1],
        reference="one",
    )
    own = {row.name: found.cells(row, {}) for row in found.rows}
    for cell, us in zip(own["one"], (60.0, 70.0), strict=True):
        write(cell, us, calibrated=us - 10)
    for cell, us in zip(own["two"], (80.0, 90.0), strict=True):
        write(cell, us, calibrated=us - 5)
    write(own["lost"][1], 10.0, git="second")
    failures = {own["lost"][0].folder: "NaN"}
    return collect(found, {row.name: {} for row in found.rows}, failures)


def test_cells(made):
    first, *_, lost, other = made["cells"]
    assert (first["method"], first["seed"], first["folder"]) == ("one", 0, "one/0")
    assert (first["seconds"], first["steps"], first["wall_seconds"]) == (9, 3, 60)
    assert (first["frozen"], first["peak_bytes"]) == (7, 160)
    assert {row["model"] for row in first["rows"]} == {"unlearned", "calibrated"}
    assert (lost["failed"], "rows" in lost, "rows" in other) == ("NaN", False, True)
    assert made["cells"][2]["overrides"] == {"unlearning.epochs": 5}


def test_versions_are_told_once_each(made):
    assert [about["git"] for about in made["made_with"]] == ["first", "second"]
    assert all(set(about) == {"grail", "python", "packages", "git"} for about in made["made_with"])


def test_means_over_seeds(made):
    one, two, lost = made["methods"]
    assert (one["n_seeds"], lost["n_seeds"], lost["failed"]) == (2, 1, 1)
    assert one["train"]["privacy.US"] == {"mean": 65, "sd": pytest.approx(50**0.5)}
    assert one["train"]["Avg"]["mean"] == 57.5
    seeds = [2 * us * rs / (us + rs) for us, rs in ((60, 50), (70, 50))]  # of each, then the mean
    assert one["train"]["privacy.HS"]["mean"] == pytest.approx(sum(seeds) / 2)
    assert two["val"]["Avg"]["mean"] == 62.5
    assert one["val"]["unlearn NLL"]["mean"] == 6.5
    assert one["val"]["general NLL"] == {"mean": 3, "sd": 0}
    assert lost["val"]["Avg"] == {"mean": 25, "sd": None}
    assert one["calibrated"]["train"]["privacy.US"]["mean"] == 55
    assert "calibrated" not in lost
    assert (one["minutes"]["mean"], one["peak_bytes"]) == (0.15, 170)
    assert made["vanilla"]["train"]["privacy.US"] == {"mean": 5, "sd": None}


def test_vanilla_is_never_that_of_a_failed_cell(plan):
    found = plan({"one": {}, "two": {"set": {"unlearning": {"epochs": 5}}}})
    first, second = (found.cells(row, {})[0] for row in found.rows)
    write(first, 60.0)  # of an earlier run: this time it failed before it began
    write(second, 80.0)
    results = read_json(second.folder / "results.json")
    for row in results["rows"]:
        row["value"] += 1.0 if (row["model"], row["metric"]) == ("vanilla", "RS") else 0.0
    write_json(second.folder / "results.json", results)
    made = collect(found, {"one": {}, "two": {}}, {first.folder: "no memory"})
    assert made["vanilla"]["train"]["privacy.RS"]["mean"] == 51.0


def test_general_text_is_that_of_the_held_out_half(plan):
    found = plan({"one": {}})
    cell = found.cells(found.rows[0], {})[0]
    write(cell, 60.0)
    results = read_json(cell.folder / "results.json")
    (general,) = [row for row in results["rows"] if row["side"] == "general"]
    results["rows"].append(general | {"part": "val", "value": 7.0})
    write_json(cell.folder / "results.json", results)
    (one,) = collect(found, {"one": {}}, {})["methods"]
    assert (one["train"]["general NLL"]["mean"], one["val"]["general NLL"]["mean"]) == (7.0, 7.0)


def test_differences_to_the_reference(made):
    found = {(d["method"], d["model"], d["part"], d["metric"]): d for d in made["differences"]}
    line = found["two", "unlearned", "train", "Avg"]
    assert (line["mean"], line["low"], line["high"]) == pytest.approx((10, 10, 10))
    assert (line["reference"], line["seeds"]) == ("one", [0, 1])
    assert found["two", "calibrated", "val", "Avg"]["mean"] == pytest.approx(12.5)
    assert found["lost", "unlearned", "val", "Avg"]["seeds"] == [1]
    assert ("lost", "calibrated", "val", "Avg") not in found


def test_differences_to_each_reference(plan):
    found = plan({"one": {}, "two": {}}, reference=["one", "two"])
    for row, shift in zip(found.rows, (60.0, 70.0), strict=True):
        write(found.cells(row, {})[0], shift)
    lines = collect(found, {"one": {}, "two": {}}, {})["differences"]
    pairs = {(d["method"], d["reference"]): d["mean"] for d in lines if d["metric"] == "Avg"}
    assert pairs.keys() == {("two", "one"), ("one", "two")}
    assert pairs["two", "one"] == -pairs["one", "two"] != 0


def test_a_lead_in_one_seed_alone_is_not_clear(plan):
    found = plan({"one": {}, "two": {}}, seeds=[0, 1], reference="one")
    for row, shares in zip(found.rows, ((60.0, 90.0), (90.0, 70.0)), strict=True):
        for cell, us in zip(found.cells(row, {}), shares, strict=True):
            write(cell, us)
    lead = collect(found, {"one": {}, "two": {}}, {})["best"][0]
    assert (lead["method"], lead["second"]) == ("two", "one")
    assert lead["mean"] == pytest.approx(2.5)
    assert lead["by_seed"] == pytest.approx([15.0, -10.0])
    assert lead["low"] < 0 < lead["mean"]
    assert not lead["clear"]


def test_who_leads_and_whether_it_is_clear(made):
    found = {(d["model"], d["part"], d["metric"]): d for d in made["best"]}
    line = found["unlearned", "val", "Avg"]
    assert (line["method"], line["second"], line["clear"]) == ("two", "one", True)


def test_a_seed_is_not_an_override(made):
    assert made["cells"][1]["overrides"] == {}
    assert made["cells"][1]["seed"] == 1


def test_the_whole_is_json(made):
    assert json.loads(json.dumps(made, allow_nan=False)) == made
