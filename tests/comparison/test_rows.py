"""From settings to cells: the order of layers, rows of a varied setting, points, folders."""

from pathlib import Path

import pytest

from grail.comparison.rows import cross, plan_comparison, slug
from grail.comparison.settings import load_comparison
from grail.errors import InputError


def test_cross_product():
    assert cross({}) == [{}]
    assert cross({"a": [1, 2], "b": ["x"]}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]


def test_base_then_preset_then_set_then_point_then_seed(plan):
    found = plan(
        {
            "base only": {},
            "preset": {"preset": "ascent-descent"},
            "set": {"preset": "ascent-descent", "set": {"unlearning": {"retain_weight": 7.0}}},
            "grid": {"preset": "ascent-descent", "grid": {"unlearning.retain_weight": [9.0, 8.0]}},
        },
        base={"unlearning": {"retain_weight": 5.0}, "seed": 4},
        seeds=[0, 3],
    )
    weights = [
        [c.config.unlearning.retain_weight for c in found.cells(row, row.points[0])]
        for row in found.rows
    ]
    assert weights == [[5.0] * 2, [1.0] * 2, [7.0] * 2, [9.0] * 2]
    cell = found.cells(found.rows[3], found.rows[3].points[1])[1]
    assert (cell.config.unlearning.retain_weight, cell.config.seed) == (8.0, 3)
    assert cell.folder == found.output / "grid" / "3"


def test_all_cells_share_the_seeds_of_vanilla_and_labels(plan):
    found = plan({"a": {}}, base={"seed": 4}, seeds=[0, 1])
    cells = found.cells(found.rows[0], {})
    assert [(c.config.teach.seed, c.config.importance.seed) for c in cells] == [(4, 4)] * 2
    assert (found.base.teach.seed, found.base.seed) == (4, 4)
    own = plan({"a": {}}, base={"teach": {"seed": 8}})
    assert (own.base.teach.seed, own.base.importance.seed) == (8, 0)


def test_vary_makes_rows_in_order(plan):
    vary = {"localization.k_op_ur": [0.05, 0.1], "localization.keep_op_rr": [True]}
    found = plan({"first": {}, "k": {"preset": "grail", "vary": vary}, "last": {}})
    names = ["first", "k, k_op_ur=0.05, keep_op_rr=true", "k, k_op_ur=0.1, keep_op_rr=true", "last"]
    assert [row.name for row in found.rows] == names
    row = found.rows[1]
    assert row.varied == {"localization.k_op_ur": 0.05, "localization.keep_op_rr": True}
    (cell,) = found.cells(row, {})
    assert cell.config.localization.k_op_ur == 0.05
    assert cell.folder.parent.name == "k-k_op_ur=0.05-keep_op_rr=true"


def test_whole_keys_where_last_words_would_not_tell(plan):
    vary = {"teach.epochs": [1], "unlearning.epochs": [2]}
    found = plan({"k": {"vary": vary}})
    assert found.rows[0].name == "k, teach.epochs=1, unlearning.epochs=2"


def test_own_grid_and_seeds_replace_the_general_ones(plan):
    found = plan(
        {
            "all": {},
            "none": {"grid": {}},
            "own": {"grid": {"unlearning.epochs": [3]}, "seeds": [7]},
        },
        grid={"unlearning.learning_rate": [0.1, 0.2], "unlearning.epochs": [1, 2]},
        seeds=[0, 1],
        choose={"seed": 5},
    )
    everything, none, own = found.rows
    assert (len(everything.points), none.points) == (4, ({},))
    assert (own.points, own.seeds) == (({"unlearning.epochs": 3},), (7,))
    candidates = found.candidates(everything)
    assert [cell.seed for cell in candidates] == [5] * 4
    assert candidates[1].folder == found.output / "all" / "grid" / "learning_rate=0.1-epochs=2"
    assert found.candidates(none) == found.candidates(own) == []


def test_every_problem_is_told_once_and_where_it_stands(comparison):
    file = comparison(
        {
            "a": {"preset": "grial"},
            "b": {"set": {"unlearning": {"epoch": 3}}},
            "c": {"grid": {"unlearning.learning_rate": [1.0, -1.0]}},
            "vanilla": {},
            "B ": {},
            "b!": {},
        },
        base={"evaluation": {"batch_size": 0}},
    )
    with pytest.raises(InputError) as error:
        plan_comparison(*load_comparison(file, []))
    text = str(error.value)
    assert text.count("evaluation.batch_size") == 1
    assert "base: evaluation.batch_size" in text
    assert "methods.a: preset: 'grial' is unknown. Did you mean 'grail'?" in text
    assert "methods.b: unknown key unlearning.epoch. Did you mean 'epochs'?" in text
    assert "methods.c: unlearning.learning_rate" in text
    assert "the folder of 'vanilla' is taken by the comparison's own files" in text
    assert "the folder of 'b!' is taken by 'B '" in text


def test_a_section_that_is_none_is_told_of(comparison):
    with pytest.raises(InputError, match="base: teach should be a section"):
        plan_comparison(*load_comparison(comparison({"a": {}}), ["base.teach=3"]))


@pytest.mark.parametrize(
    ("name", "folder"),
    [("k, k_op_ur=0.05", "k-k_op_ur=0.05"), ("../up", "up"), ("ä", "-"), ("a/b c", "a-b-c")],
)
def test_names_of_folders(name, folder):
    assert slug(name) == folder
    assert Path(folder).name == folder
