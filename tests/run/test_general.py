"""General tasks in a run: asked once, kept by item, made again when what they rest on changes."""

import json
import re
import statistics
import sys

import pytest

from grail.cli.main import main
from grail.config.run import GENERAL_TASKS
from grail.errors import InputError
from grail.evaluation.general import harness
from grail.files import read_json

ROWS = [
    {"id": f"s{i}", "context": "", "question": q, "choices": ["nop", "qrs", "t"], "answer": i % 3}
    for i, q in enumerate("abcdefgh")
]


@pytest.fixture
def sky(tmp_path):
    file = tmp_path / "tasks" / "sky.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (file.parent / "sea.jsonl").write_text(file.read_text().replace('"id": "s', '"id": "w'))
    return file


@pytest.fixture
def run(capsys):
    """Run grail; return the stages that did work, those that were kept, and what was printed."""

    def call(*arguments, code=0):
        capsys.readouterr()
        found = main([str(word) for word in arguments])
        shown = capsys.readouterr()
        assert found == code, shown.err
        done = re.findall(r"^(.+): started$", shown.err, re.MULTILINE)
        kept = re.findall(r"^kept (.+?) \(", shown.err, re.MULTILINE)
        return done, kept, shown.out

    return call


def test_both_models_are_asked_once_and_shown_everywhere(tiny_config, run, tmp_path, sky):
    pytest.importorskip("lm_eval")
    folder, config = tmp_path / "run", tiny_config(evaluation={"general_tasks": ["tasks/"]})
    done, kept, out = run("run", config)
    assert done[-3:] == ["general vanilla", "general unlearned", "report"]
    assert not kept

    found = json.loads((folder / "general.json").read_text())
    lines = [json.loads(line) for line in (folder / "general_samples.jsonl").open()]
    assert len(lines) == 2 * 2 * len(ROWS)
    assert lines[0].keys() == {"model", "task", "id", "correct", "correct_norm"}
    assert not any(row["question"] in line.values() for row in ROWS for line in lines)
    assert [(r["task"], r["metric"], r["n"]) for r in found["tasks"]] == [
        (task, metric, 8) for task in ("sea", "sky") for metric in ("acc", "acc_norm")
    ]
    for row in found["tasks"]:
        field = {"acc": "correct", "acc_norm": "correct_norm"}[row["metric"]]
        of = {
            model: [s[field] for s in lines if (s["model"], s["task"]) == (model, row["task"])]
            for model in ("vanilla", "unlearned")
        }
        of["difference"] = [a - b for b, a in zip(of["vanilla"], of["unlearned"], strict=True)]
        for name, values in of.items():
            assert row[name]["value"] == pytest.approx(100 * statistics.mean(values))
            error = 100 * statistics.stdev(values) / len(values) ** 0.5
            assert row[name]["stderr"] == pytest.approx(error)

    cell = f"{found['tasks'][0]['vanilla']['value']:.1f} ± "
    for text in (out, *((folder / f"report.{kind}").read_text() for kind in ("md", "html"))):
        assert "General ability" in text
        assert cell in text
    assert json.loads(run("report", folder, "--json")[2])["general"] == read_json(
        folder / "general.json"
    )

    before = (folder / "general.json").read_bytes()
    done, kept, _ = run("run", config)
    assert done == ["report"]
    assert {"general vanilla", "general unlearned"} <= set(kept)
    assert (folder / "general.json").read_bytes() == before


def test_only_what_changed_is_asked_again(tiny_config, run, tmp_path, sky):
    pytest.importorskip("lm_eval")
    config, folder = tiny_config(evaluation={"general_tasks": [str(sky)]}), tmp_path / "run"
    both = ["general vanilla", "general unlearned"]
    run("evaluate", config)
    whole = (folder / "general.json").read_bytes()
    done, kept, _ = run("evaluate", config, "--set", "evaluation.general_max_items=3")
    assert done == both
    assert {"evaluate vanilla", "evaluate unlearned"} <= set(kept)
    assert json.loads((folder / "general.json").read_text())["tasks"][0]["n"] == 3
    done, _, _ = run("evaluate", config)
    assert done == both
    assert (folder / "general.json").read_bytes() == whole

    (folder / "evaluation" / "general.vanilla.json").write_text("{")
    assert run("evaluate", config)[0] == both[:1]
    moved = sky.rename(sky.with_name("moved.jsonl")).rename(tmp_path / "sky.jsonl")
    done, _, _ = run("evaluate", config, "--set", f"evaluation.general_tasks=[{moved}]")
    assert done == []  # the same task from another place
    moved.write_text(moved.read_text().replace('"answer": 2', '"answer": 1'))
    done, kept, _ = run("evaluate", config, "--set", f"evaluation.general_tasks=[{moved}]")
    assert done == both
    assert "evaluate vanilla" in kept
    assert (folder / "general.json").read_bytes() != whole

    _, kept, out = run("evaluate", config, "--set", "evaluation.general_tasks=[]")
    assert "evaluate vanilla" in kept
    assert "General ability" not in out
    assert not (folder / "general.json").exists()
    assert not (folder / "general_samples.jsonl").exists()
    again = ("--set", f"evaluation.general_tasks=[{moved}]", "--set", "unlearning.epochs=1")
    done, _, _ = run("run", config, *again)
    assert [stage for stage in done if stage.startswith("general")] == both[1:], "other weights"


def test_vanilla_alone_is_asked_for_those_who_share_it(tiny_config, run, tmp_path, sky):
    pytest.importorskip("lm_eval")
    config = tiny_config(evaluation={"general_tasks": [str(sky)]})
    done, _, _ = run("evaluate", config, "--vanilla-only")
    assert done[-2:] == ["evaluate vanilla", "general vanilla"]
    assert (tmp_path / "run" / "evaluation" / "general.vanilla.json").exists()
    assert not (tmp_path / "run" / "general.json").exists()


def test_without_tasks_the_harness_is_not_imported(tiny_config, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # an import would fail
    run("run", tiny_config())
    assert not (tmp_path / "run" / "general.json").exists()
    assert "General ability" not in (tmp_path / "run" / "report.html").read_text()


def test_what_is_out_of_reach_is_known_before_any_training(
    tiny_config, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("lm_eval")

    def out_of_reach(names):
        raise ConnectionError("offline")

    known = type("Index", (), {"load": staticmethod(out_of_reach)})
    monkeypatch.setattr(harness, "_index", lambda: known)
    assert main(["run", str(tiny_config(evaluation={"general_tasks": ["race"]}))]) == 2
    err = capsys.readouterr().err
    assert "'race' could not be loaded (ConnectionError: offline)" in err
    assert "started" not in err
    assert not (tmp_path / "run").exists()


def test_the_flag_means_the_papers_tasks_where_none_are_given(tiny_config, monkeypatch, sky):
    seen = []

    def stop(config):
        seen.append(config.evaluation.general_tasks)
        raise InputError("enough")

    monkeypatch.setattr("grail.run.inputs.read_inputs", stop)
    given = str(tiny_config())
    chosen = str(tiny_config(name="chosen", evaluation={"general_tasks": [str(sky)]}))
    for words in (["evaluate", given], ["evaluate", given, "--general"]):
        assert main(words) == 2
    assert main(["evaluate", chosen, "--general"]) == 2
    assert seen == [[], list(GENERAL_TASKS), [str(sky)]]
