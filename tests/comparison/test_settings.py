"""The YAML of a comparison: what is wrong is said by key, all of it at once."""

from pathlib import Path

import pytest
import yaml

from grail.comparison.settings import load_comparison, parse_comparison
from grail.config.file import COMPARISON
from grail.errors import InputError

GOOD = {"base": {"domains": {}}, "methods": {"grail": {"preset": "grail"}}, "output": "runs/x"}


def told(**more):
    with pytest.raises(InputError) as error:
        parse_comparison(GOOD | more)
    return error.value.problems


def test_defaults():
    found = parse_comparison(GOOD)
    assert (found.seeds, found.grid, found.parallel, found.reference) == ([0], {}, 1, [])
    assert (found.choose.part, found.choose.metric, found.choosing_seed) == ("train", "Avg", 1)
    assert found.figures == ["tradeoff", "heatmap", "sweep"]


def test_all_problems_at_once():
    lines = told(seeds=[0, 0], paralel=2, methods={"m": {"prest": "grail"}}, grid={"a.b": []})
    text = "\n".join(lines)
    assert len(lines) == 4
    assert "unknown key paralel. Did you mean 'parallel'?" in text
    assert "unknown key methods.m.prest. Did you mean 'preset'?" in text
    assert "Allowed in methods.m: preset, set, vary, seeds, grid." in text
    assert "seeds: names 0 twice." in text
    assert "grid.a.b should hold at least one entry" in text


@pytest.mark.parametrize(
    "given",
    [{"columns": ["US", "HS", "US"]}, {"figures": ["sweep"] * 2}, {"reference": ["grail"] * 2}],
)
def test_what_is_named_twice_is_refused(given):
    ((name, values),) = given.items()
    (line,) = told(**given)
    assert line.startswith(f"{name}: names {values[0]} twice")


def test_val_never_chooses():
    (line,) = told(choose={"part": "val"})
    assert line.startswith("choose.part: 'val' cannot choose: val rows are only for reporting")


def test_a_reported_seed_never_chooses():
    grid = {"unlearning.epochs": [1, 2]}
    assert parse_comparison(GOOD | {"seeds": [1, 0, 3]}).choosing_seed == 2
    (line,) = told(seeds=[0, 5], choose={"seed": 5}, grid=grid)
    assert line.startswith("choose.seed: 5 is reported too")
    methods = {"m": {"seeds": [7]}}
    (line,) = told(methods=methods, choose={"seed": 7}, grid=grid)
    assert line.startswith("choose.seed: 7 is reported too")
    assert parse_comparison(GOOD | {"choose": {"seed": 0}}).choosing_seed == 0  # nothing to choose


def test_an_output_in_the_base_is_refused():
    (line,) = told(base={"output": "x"})
    assert line.startswith("base: give the output beside base")


def test_one_reference_or_several():
    assert parse_comparison(GOOD | {"reference": "grail"}).reference == ["grail"]
    assert parse_comparison(GOOD | {"reference": ["grail"]}).reference == ["grail"]


def test_the_reference_is_one_of_the_rows():
    (line,) = told(reference="grial")
    assert line == "reference 'grial' is not a method. Did you mean 'grail'? Allowed: grail."
    (line,) = told(reference=["grail", "grial"])
    assert line.startswith("reference 'grial' is not a method.")
    methods = {"k": {"vary": {"unlearning.epochs": [1, 2]}}}
    assert told(methods=methods, reference="k") == ["reference 'k' varies: it must be one row."]


@pytest.mark.parametrize("key", ["seed", "output", "preset", "made_with"])
def test_what_a_cell_would_overwrite_is_refused(key):
    for place in ({"set": {key: 1}}, {"vary": {key: [1]}}, {"grid": {key: [1]}}):
        (line,) = told(methods={"m": place})
        assert line.startswith(f"methods.m.{next(iter(place))}: {key} ")
    (line,) = told(grid={key: [1]})
    assert line.startswith(f"grid: {key} ")


@pytest.mark.parametrize("figures", [["tradeof"], "tradeoff"])
def test_figures_are_chosen_from_a_list(figures):
    (line,) = told(figures=figures)
    assert line.startswith("figures")


def test_load_reads_overrides_and_output(tmp_path, monkeypatch):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in GOOD.items() if k != "output"}))
    found, place = load_comparison(file, ["seeds=[3]", "base.unlearning.epochs=5"])
    assert (found.seeds, found.output, place) == ([3], "runs/mine", tmp_path)
    assert found.base["unlearning"] == {"epochs": 5}
    assert load_comparison(file, [], "elsewhere")[0].output == "elsewhere"


def test_a_base_may_be_another_file_in_the_folder(tmp_path):
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(GOOD["base"]))
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"base": "pair.yaml"}))
    found, place = load_comparison(file, [])
    assert found == parse_comparison(GOOD)
    assert place == tmp_path
    file.write_text(yaml.safe_dump(GOOD | {"base": "pear.yaml"}))
    with pytest.raises(InputError, match=r"pear\.yaml does not exist"):
        load_comparison(file, [])


def test_all_its_files_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(GOOD["base"]))
    (tmp_path / "table1.yaml").write_text(yaml.safe_dump(GOOD))
    more = {"base": "~/pair.yaml", "methods": "~/table1.yaml"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(GOOD | more))
    assert load_comparison(Path("~/mine.yaml"), []) == (parse_comparison(GOOD), tmp_path)


@pytest.mark.parametrize("apart", [True, False])
def test_a_model_may_be_beside_the_target_of_a_link(apart, tmp_path):
    far, near = tmp_path / "far", tmp_path / "near"
    (far / "m").mkdir(parents=True)
    near.mkdir()
    base = GOOD["base"] | {"model": {"name": "./m"}}
    (far / "pair.yaml").write_text(yaml.safe_dump(base))
    (far / "mine.yaml").write_text(yaml.safe_dump(GOOD | {"base": "pair.yaml" if apart else base}))
    for file in far.glob("*.yaml"):
        (near / file.name).symlink_to(file)
    found, place = load_comparison(near / "mine.yaml", [])
    assert found.base == GOOD["base"] | {"model": {"name": str(far / "m")}}
    assert place == near
    (near / "m").mkdir()
    assert load_comparison(near / "mine.yaml", [])[0].base == base


def test_methods_may_be_those_of_another_comparison(tmp_path):
    (tmp_path / "table1.yaml").write_text(yaml.safe_dump(GOOD))
    file = tmp_path / "table5.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"methods": "table1.yaml", "choose": {"metric": "HS"}}))
    found, _ = load_comparison(file, ["methods.grail.seeds=[3]"])
    assert (found.choose.metric, found.methods["grail"].seeds) == ("HS", [3])
    (tmp_path / "table1.yaml").write_text("title: no methods here\n")
    with pytest.raises(InputError, match=r"methods: .*table1\.yaml has no methods\."):
        load_comparison(file, [])


def test_one_run_is_no_comparison(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("domains: {}\n", encoding="utf-8")
    for path in (file, tmp_path):
        with pytest.raises(InputError, match=f"^{file} is one run.*Use: grail run {path}$"):
            load_comparison(path, [])
    (tmp_path / COMPARISON).mkdir()
    with pytest.raises(InputError, match=f"^{tmp_path} is the output of a comparison. Give its"):
        load_comparison(tmp_path, [])
