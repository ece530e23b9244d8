"""The whole pipeline on a tiny model, through the command line: what it writes and redoes."""

import contextlib
import io
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import forks
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from grail import api
from grail.artifacts import read_mask
from grail.cli.main import main
from grail.config.file import load_config
from grail.errors import InputError
from grail.files import read_json, write_json
from grail.progress import NullListener
from grail.reporting.run.verdict import run_checks
from grail.results import read_results
from grail.run import manifest
from grail.run.directory import stamp, weights_digest
from grail.run.inputs import FRESH_ADAPTER, read_inputs
from grail.run.lock import alone
from grail.run.pipeline import Run
from grail.training.accelerator import make_accelerator

ROOT = Path(__file__).parents[2]
CHECK_RUN = ROOT.parent / "shared" / "tools" / "check_run.py"
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}
MODEL = {"adapter_config.json", "adapter_model.safetensors", "stage.json"} | TOKENIZER
STAMPED = re.compile(rb'"seconds": [0-9.]+')


def files(folder):
    """Name -> bytes of all files, but for the lock and the seconds of the training logs.

    The manifest knows the digests of the logs, seconds and all; it must fit what is there.
    """
    if (folder / "results.json").exists():
        assert manifest.problems(folder) == []
    return {
        path.relative_to(folder).as_posix(): STAMPED.sub(b"", path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "manifest.json")
    }


def differing(one, other):
    names = one.keys() | other.keys()
    return sorted(name for name in names if one.get(name) != other.get(name))


@pytest.fixture
def run(capsys):
    """Run grail and return the stages that did work and those that were kept."""

    def call(*arguments, code=0):
        capsys.readouterr()
        # One line of JSON instead of tables, which nobody reads and whose layout takes longer.
        found = main([*(str(word) for word in arguments), "--json"])
        err = capsys.readouterr().err
        assert found == code, err
        done = re.findall(r"^(.+): started$", err, re.MULTILINE)
        kept = re.findall(r"^kept (.+?) \(", err, re.MULTILINE)
        return done, kept

    return call


def verdict_on(folder):
    """Have an independent script recompute mask and freezing; return its exit code and words."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", [str(CHECK_RUN), str(folder)])
        patch.setattr(yaml, "SafeLoader", getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(CHECK_RUN), run_name="__main__")
    return int(ended.value.code or 0), said.getvalue()


def check_run(folder):
    if CHECK_RUN.is_file():  # it lies beside the checkout, or not
        code, said = verdict_on(folder)
        assert code == 0, said


def contracted(domains=("privacy", "copyright")):
    return (
        {"config.yaml", "mask.safetensors", "localization.json", "train.jsonl", "results.json"}
        | {"samples.jsonl", "report.html", "report.md", "vanilla.train.jsonl"}
        | {f"{model}/{name}" for model in ("vanilla", "unlearned") for name in MODEL}
        | {f"evaluation/{model}.json" for model in ("vanilla", "unlearned")}
        | {f"scores/{d}.{side}.safetensors" for d in domains for side in ("unlearn", "retain")}
    )


def test_a_run_writes_what_the_contract_says_and_a_second_changes_nothing(
    tiny_config, run, tmp_path
):
    config, folder = tiny_config(), tmp_path / "run"
    done, kept = run("run", config)
    assert not kept
    assert [name.split()[0] for name in done] == [
        *("vanilla", "score", "score", "score", "score", "localize", "unlearn"),
        *("evaluate", "evaluate", "report"),
    ]
    first = files(folder)
    assert first.keys() == contracted()
    assert read_json(folder / "manifest.json")["files"].keys() == first.keys()
    check_run(folder)
    done, kept = run("run", config)
    assert done == ["report"]
    assert len(kept) == 9
    assert not differing(first, files(folder))
    # and from the run directory itself
    assert run("run", folder)[0] == ["report"]
    assert not differing(first, files(folder))


def test_the_freezing_proof_and_the_summary_are_of_this_run(finished_run):
    results = json.loads((finished_run / "results.json").read_text())
    freezing = results["freezing"]
    assert freezing["changed"] == 0 < freezing["frozen"] < freezing["entries"]
    assert freezing["sha256_before"] == freezing["sha256_after"]
    assert 0 < freezing["moved"] <= freezing["entries"] - freezing["frozen"]
    rows = {
        (r["domain"], r["side"], r["part"], r["metric"]): r["value"]
        for r in results["rows"]
        if r["model"] == "unlearned"
    }
    pairs = [
        (rows[d, "unlearn", "train", "US"], rows[d, "retain", "train", "RS"])
        for d in ("privacy", "copyright")
    ]
    summary = results["summary"]["train"]
    assert summary["Avg"] == pytest.approx(sum(map(sum, pairs)) / 4)
    hs = [2 * us * rs / (us + rs) if us + rs else 0.0 for us, rs in pairs]
    assert summary["HS"] == pytest.approx(sum(hs) / 2)


@pytest.mark.skipif(not CHECK_RUN.is_file(), reason="check_run.py is not beside this checkout")
def test_the_independent_script_can_say_no(finished, tmp_path):
    finished()
    folder = tmp_path / "run"
    check_run(folder)
    unlearned, vanilla = (
        folder / name / "adapter_model.safetensors" for name in ("unlearned", "vanilla")
    )
    content = bytearray(unlearned.read_bytes())
    content[-4 * 200 :] = b"\1" * 4 * 200  # entries of the last tensors, frozen ones among them
    unlearned.write_bytes(content)
    assert "frozen entries changed" in verdict_on(folder)[1]
    shutil.copy(vanilla, unlearned)
    assert "no free entry moved" in verdict_on(folder)[1]


CHANGES = [
    ("unlearning.learning_rate=0.02", {"unlearn", "evaluate unlearned"}),
    ("unlearning.checkpoint_steps=3", set()),
    ("evaluation.show_text=true", {"evaluate vanilla", "evaluate unlearned"}),
    ("evaluation.min_k=0.5", {"evaluate vanilla", "evaluate unlearned"}),
    ("localization.k_op_ur=0.3", {"localize", "unlearn", "evaluate unlearned"}),
]


def test_a_changed_setting_redoes_what_depends_on_it_and_no_more(finished, run, tmp_path):
    config, folder = finished(), tmp_path / "run"
    for change, stages in CHANGES:
        before = files(folder)
        done, kept = run("run", config, "--set", change)
        assert set(done) == stages | {"report"}, change
        assert not set(done) & set(kept)
        if change.startswith("unlearning.learning_rate"):
            untouched = {n for n in before if n.startswith(("vanilla", "scores", "evaluation/van"))}
            changed = differing(before, files(folder))
            assert not untouched & set(changed)
            assert {"unlearned/adapter_model.safetensors", "results.json"} <= set(changed)
        run("run", config)  # back to where it began
        assert not differing(before, files(folder)), change


def test_changed_data_redoes_only_their_side(tiny_config, run, tmp_path):
    config = tiny_config(teach=None)
    run("run", config)
    with (tmp_path / "data" / "privacy_retain_train.jsonl").open("a") as file:
        file.write('{"prompt": "new?", "completion": "row"}\n')
    done, kept = run("run", config)
    assert "score privacy.retain" in done
    assert {"vanilla", "score privacy.unlearn", "score copyright.retain"} <= set(kept)
    with (tmp_path / "data" / "general.jsonl").open("a") as file:
        file.write('{"prompt": "moon?", "completion": "rock"}\n')
    done, _ = run("run", config)
    assert done == ["evaluate vanilla", "evaluate unlearned", "report"]


def test_held_out_rows_are_measured_and_touch_nothing_else(finished, run, tmp_path):
    config, folder = finished(), tmp_path / "run"
    before = files(folder)
    results = read_results(folder / "results.json")
    assert not [row for row in results.rows if row.metric.startswith("AUC")]
    assert "Not measured for privacy, copyright" in (folder / "report.md").read_text()
    source = tmp_path / "data" / "new.jsonl"
    lines = [{"prompt": f"held {i}?", "completion": "out" * (i + 1)} for i in range(5)]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    held = ("--set", f"domains.privacy.unlearn.heldout={source}")
    done, kept = run("run", config, *held)
    assert done == ["evaluate vanilla", "evaluate unlearned", "report"]
    assert len(kept) == 7
    changed = differing(before, files(folder))
    made = {"results.json", "samples.jsonl", "report.md", "report.html", "config.yaml"}
    assert set(changed) == made | {f"evaluation/{m}.json" for m in ("vanilla", "unlearned")}
    with_areas = read_results(folder / "results.json")
    areas = [row for row in with_areas.rows if row.metric.startswith("AUC")]
    assert [row for row in with_areas.rows if row not in areas] == list(results.rows)
    assert with_areas.summary == results.summary
    assert {(row.model, row.domain, row.side, row.part, row.n) for row in areas} == {
        (model, "privacy", "unlearn", "train", 4 + 5) for model in ("vanilla", "unlearned")
    }
    assert "Not measured for copyright" in (folder / "report.md").read_text()
    values = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    own = [v for v in values if v["part"] == "heldout"]
    assert len(own) == 2 * 5
    assert not [v for v in own if "rouge_l" in v]
    assert run("run", config)[0] == ["evaluate vanilla", "evaluate unlearned", "report"]
    assert not differing(before, files(folder))


def test_val_rows_are_held_out_where_no_model_was_trained_on_them(tiny_config, run, tmp_path):
    def areas(*changes):
        run("run", config, *changes)
        rows = read_results(tmp_path / "run" / "results.json").rows
        return {(row.model, row.domain, row.n) for row in rows if row.metric == "AUC-min-k++"}

    config = tiny_config(teach={"include_val": False})
    domains = ("privacy", "copyright")
    assert areas() == {(m, d, 4 + 2) for m in ("vanilla", "unlearned") for d in domains}
    assert areas("--set", "teach=null") == set()


def test_seeds_of_their_own_let_runs_share_vanilla_model_and_scores(tiny_config, run, tmp_path):
    own = {"teach": {"seed": 5}, "importance": {"seed": 6}}
    config, folder = tiny_config(**own), tmp_path / "run"
    run("run", config)
    shared = {f"score {d}.{s}" for d in ("privacy", "copyright") for s in ("unlearn", "retain")}
    shared |= {"vanilla", "evaluate vanilla"}
    before = files(folder)
    done, kept = run("run", config, "--set", "seed=1")
    assert set(kept) == shared
    assert done == ["localize", "unlearn", "evaluate unlearned", "report"]
    changed = differing(before, files(folder))
    assert not [name for name in changed if name.startswith(("vanilla", "scores"))]
    assert "unlearned/adapter_model.safetensors" in changed
    # a seed of its own that is the run's is no other seed; one that is not, is
    scores = shared - {"vanilla", "evaluate vanilla"}
    same = ("--set", "seed=5", "--set", "teach.seed=null")
    done, kept = run("score", config, *same)
    assert (done, set(kept)) == ([], scores | {"vanilla"})
    done, kept = run("score", config, "--set", "importance.seed=7")
    assert (set(done), kept) == (scores, ["vanilla"])
    done, _ = run("score", config, "--set", "teach.seed=7")
    assert done[0] == "vanilla"


def copied_model(folder, name):
    shutil.copytree(folder, name)
    return name


def test_another_base_model_in_the_same_place_redoes_everything(
    tiny_config, tiny_model_folder, run, tmp_path
):
    """A fresh adapter is the same bytes on any base: its digest would not tell."""
    base = copied_model(tiny_model_folder, tmp_path / "model")
    config = tiny_config(teach=None, model={"name": str(base)})
    done, _ = run("localize", config)
    before = files(tmp_path / "run")
    (base / "model.safetensors").touch()
    assert run("localize", config)[0] == []
    weights = load_file(base / "model.safetensors")
    save_file(
        {k: v * 1.5 for k, v in weights.items()}, base / "model.safetensors", {"format": "pt"}
    )
    again, kept = run("localize", config)
    assert again == done
    assert not kept
    changed = differing(before, files(tmp_path / "run"))
    assert "vanilla/adapter_model.safetensors" not in changed
    assert {"mask.safetensors"} | {n for n in before if n.startswith("scores/")} <= set(changed)
    run("run", config)
    check_run(tmp_path / "run")


def test_another_set_of_domains_leaves_no_file_of_the_old_one(tiny_config, run, tmp_path):
    config = tiny_config(domains=("a", "b", "c"), localization={"freeze": "by_side"})
    run("localize", config)
    values = yaml.safe_load(config.read_text())
    del values["domains"]["c"], values["localization"]
    config.write_text(yaml.safe_dump(values))
    run("run", config)
    assert files(tmp_path / "run").keys() == contracted(("a", "b"))
    check_run(tmp_path / "run")


def test_results_do_not_outlive_the_settings_they_came_from(finished, run, tmp_path):
    config, folder = finished(), tmp_path / "run"
    run("score", config, "--set", "unlearning.learning_rate=0.02")
    assert not (folder / "results.json").exists()
    assert not (folder / "report.md").exists()
    assert main(["report", str(folder)]) == 2  # it trains nothing
    done, kept = run("run", folder)
    assert done == ["unlearn", "evaluate unlearned", "report"]
    assert "evaluate vanilla" in kept


def test_scores_that_cannot_be_made_are_refused_before_training(tiny_config, tmp_path):
    config = load_config(tiny_config(importance={"memory_gib": 1e-9}), [])
    with pytest.raises(InputError, match=r"importance\.memory_gib: 1e-09 is too little"):
        Run(config, read_inputs(config)).through()
    assert not (tmp_path / "run" / "vanilla").exists()


VARIANTS = {
    "one domain": {"domains": ("only",)},
    "three domains": {"domains": ("a", "b", "c")},
    "all weights": {"model": {"lora": None}},
    "by side": {"localization": {"freeze": "by_side"}},
    "nothing frozen, no val": {"localization": {"method": "none"}, "val": 0},
    "random, targets only": {
        "localization": {"method": "random"},
        "importance": {"substitution": "targets"},
    },
    "largest weights, no general": {
        "localization": {"method": "magnitude"},
        "general": {"train": None},
    },
    "tensors, all substituted": {
        "localization": {"method": "memflex"},
        "importance": {"substitution": "all"},
    },
    "damage budget, true labels": {
        "localization": {"method": "damage_budget", "statistic": "z_mean"},
        "importance": {"labels": "true"},
    },
    "expected labels, no generation": {
        "importance": {"labels": "expected", "substitution": "targets"},
        "evaluation": {"generate": False},
    },
    "vanilla as it is, plain loop": {
        "teach": None,
        "importance": {"gradients": "loop"},
    },
    "ascent, accumulated": {"unlearning": {"objective": "ascent", "accumulation": 2}},
    "rectified phases": {"unlearning": {"rectify": True, "phases": [["copyright"], ["privacy"]]}},
    "exact": {"unlearning": {"objective": "exact"}, "localization": {"method": "none"}},
    "all weights, a reference": {"model": {"lora": None}, "unlearning": {"objective": "npo"}},
    "all weights, exact": {
        "model": {"lora": None},
        "unlearning": {"objective": "exact"},
        "localization": {"method": "none"},
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_keep_the_contract(name, finished, run, tmp_path):
    """Of a run that was another before; nothing of that is left, and what is equal is kept."""
    config, folder = finished(**VARIANTS[name]), tmp_path / "run"
    if "domains" in VARIANTS[name]:  # a finished result of other rows is not replaced
        shutil.rmtree(folder / "unlearned")
    run("run", config)
    names = files(folder).keys()
    results = json.loads((folder / "results.json").read_text())
    freezing, rows = results["freezing"], results["rows"]
    assert freezing["changed"] == 0
    assert freezing["sha256_before"] == freezing["sha256_after"]
    if not name.startswith("all weights"):
        domains = VARIANTS[name].get("domains", ("privacy", "copyright"))
        extra = {"mask.unlearn.safetensors", "mask.retain.safetensors"} if name == "by side" else ()
        missing = {"vanilla.train.jsonl"} if "vanilla as it is" in name else set()
        assert names == contracted(domains) - missing | set(extra)
    else:
        for model in ("vanilla", "unlearned"):  # folders that stand for themselves
            whole = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
            assert {f"{model}/{file}" for file in whole} <= names
    unfrozen = VARIANTS[name].get("localization") == {"method": "none"}
    assert (freezing["frozen"] == 0) == unfrozen
    assert {r["part"] for r in rows} == ({"train"} if "no val" in name else {"train", "val"})
    assert any(r["side"] == "general" for r in rows) == ("no general" not in name)
    assert any(r["metric"] == "ROUGE-L" for r in rows) == ("no generation" not in name)
    check_run(folder)
    assert run("run", config)[0] == ["report"]


def test_magnitude_is_that_of_the_vanilla_model(finished, run, tmp_path):
    config, folder = finished(localization={"method": "magnitude"}), tmp_path / "run"
    assert run("localize", config)[0] == ["localize"]  # with a model that nothing was done to yet
    frozen = read_mask(folder / "mask.safetensors").frozen
    weights = load_file(folder / "vanilla" / "adapter_model.safetensors")
    for name, bits in frozen.items():
        sizes = weights[name.replace(".default", "")].abs()
        if 0 < bits.sum() < bits.numel():
            assert sizes[bits].min() >= sizes[~bits].max(), name
    assert any(bits.any() for bits in frozen.values())
    run("localize", config, "--set", "localization.method=grail")
    other = read_mask(folder / "mask.safetensors").frozen
    assert {n: int(b.sum()) for n, b in frozen.items()} == {
        n: int(b.sum()) for n, b in other.items()
    }


def test_batched_and_looped_scores_lead_to_the_same_place(finished, capsys):
    config = finished()
    assert main(["score", str(config), "--check", "5", "--json"]) == 0
    agreement = json.loads(capsys.readouterr().out)
    assert agreement["samples"] == 5
    assert agreement["worst"] < 1e-5


def test_a_replay_in_another_place_gives_the_same_bytes(finished, run, tmp_path):
    finished()
    run("run", tmp_path / "run" / "config.yaml", "--output", tmp_path / "other")
    one, other = files(tmp_path / "run"), files(tmp_path / "other")
    named = {"config.yaml", "report.md", "report.html"}  # they show the output's name
    assert set(differing(one, other)) <= named
    for name in named:
        renamed = other[name].replace(bytes(tmp_path / "other"), bytes(tmp_path / "run"))
        assert renamed == one[name]


def test_two_processes_write_the_same_bytes(finished, tmp_path):
    """Python's hashes of text differ between processes, and with them the order of sets."""
    config, log = finished(), tmp_path / "log"
    words = ["run", str(config), "--output", str(tmp_path / "other")]
    assert forks.run(main, words, log=log) == 0, log.read_text()
    found = set(differing(files(tmp_path / "run"), files(tmp_path / "other")))
    assert found <= {"config.yaml", "report.md", "report.html"}


def test_a_run_that_was_moved_can_be_reported_without_its_data(finished, run, tmp_path):
    finished()
    before = files(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "moved" / "report.md").unlink()
    run("report", tmp_path / "moved")
    assert not differing(before, files(tmp_path / "moved"))


def test_a_moved_run_goes_on_in_its_new_place(tiny_config, run, tmp_path):
    run("score", tiny_config())
    (tmp_path / "run").rename(tmp_path / "moved")
    done, kept = run("run", tmp_path / "moved")
    assert done[0] == "localize"
    assert len(kept) == 5
    assert not (tmp_path / "run").exists()


def test_a_vanilla_adapter_is_taken_as_it_is(finished_run, tiny_config, run, tmp_path):
    adapter = finished_run / "vanilla"
    run("run", tiny_config(name="second", teach={"adapter": str(adapter)}))
    name = "adapter_model.safetensors"
    assert (tmp_path / "second" / "vanilla" / name).read_bytes() == (adapter / name).read_bytes()


def test_a_full_weight_model_of_a_run_is_a_model_to_start_from(tiny_config, run, tmp_path):
    run("run", tiny_config(model={"lora": None}))
    given = {"name": str(tmp_path / "run" / "unlearned"), "lora": None}
    run("vanilla", tiny_config(name="second", model=given, teach=None))
    name = "model.safetensors"
    one, other = (tmp_path / run / name for run in ("run/unlearned", "second/vanilla"))
    assert one.read_bytes() == other.read_bytes()
    for tokenizer in ("tokenizer.json", "tokenizer_config.json"):
        assert (one.parent / tokenizer).read_text() == (other.parent / tokenizer).read_text()


@pytest.mark.parametrize("side", ["unlearn", "retain"])
def test_val_on_one_side_only_reaches_the_report(side, tiny_config, run, tmp_path, capsys):
    """US.val without RS.val has no summary; where another domain has both, that one counts."""
    config, folder = tiny_config(), tmp_path / "run"
    other = {"unlearn": "retain", "retain": "unlearn"}[side]
    metric = {"unlearn": "US", "retain": "RS"}[side]
    run("run", config, "--set", f"domains.privacy.{other}.val=null")
    results = read_results(folder / "results.json")
    assert {row.part for row in results.rows} == {"train", "val"}
    us, rs = (
        results.value("unlearned", "copyright", s, "val", m)
        for s, m in (("unlearn", "US"), ("retain", "RS"))
    )
    assert results.summary["val"]["unlearned"]["Avg"] == pytest.approx((us + rs) / 2)
    value = results.value("unlearned", "privacy", side, "val", metric)
    right = 100 - value if metric == "US" else value
    checks = [c for c in run_checks(results) if c.place == f"privacy.{side}"]
    assert f"→ {right:.1f} %" in checks[0].figures.partition("val rows")[2]

    both = [f"domains.{d}.{other}.val=null" for d in ("privacy", "copyright")]
    run("run", config, *(word for text in both for word in ("--set", text)))
    results = read_results(folder / "results.json")
    assert results.summary["val"] == {"vanilla": {}, "unlearned": {}}
    assert set(results.summary["train"]["unlearned"]) == {"Avg", "HS"}
    for text in ((folder / name).read_text() for name in ("report.md", "report.html")):
        assert metric in text
        assert "nan" not in text.lower().split()
    assert any(row.part == "val" and row.metric == metric for row in results.rows)
    assert not any(row.part == "val" and row.side == other for row in results.rows)
    check_run(folder)


class Heard(NullListener):
    """A listener that keeps what it is warned of."""

    def __init__(self):
        super().__init__()
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def warned(config, last, *overrides):
    settings, heard = load_config(config, list(overrides)), Heard()
    Run(settings, read_inputs(settings), heard).through(last)
    return heard.warnings


def test_a_fresh_adapter_as_the_vanilla_model_is_warned_of(tiny_config, run, tmp_path):
    config = tiny_config(teach=None)
    assert read_inputs(load_config(config, [])).warnings == (FRESH_ADAPTER,)
    with pytest.warns(UserWarning, match="a fresh adapter on a model"):
        api.run(load_config(config, [f"output={tmp_path / 'api'}"]))
    assert warned(tiny_config(name="trained"), "vanilla") == []
    assert read_inputs(load_config(tiny_config(name="trained"), [])).warnings == ()
    adapter = tmp_path / "trained" / "vanilla"
    given = {"teach": None, "model": {"name": str(adapter)}}
    assert read_inputs(load_config(tiny_config(name="given", **given), [])).warnings == ()
    assert warned(tiny_config(name="full", teach=None, model={"lora": None}), "vanilla") == []


def test_blocks_that_no_name_tells_of_are_warned_of(tiny_config, monkeypatch):
    config = tiny_config()
    assert warned(config, "localize") == []
    monkeypatch.setattr("grail.localization.select.block_of", lambda name: None)
    assert warned(config, "localize", "localization.k_op_ur=0.3")[1:] == []  # an adapter's tensors
    again = ["localization.layer=block"]
    told, *others = warned(config, "localize", *again)
    assert told.startswith("localization.layer: block, but ")
    assert ["made with other settings" in text for text in others] == [True]  # told before work
    assert warned(config, "localize", *again) == []  # kept


# -- processes, trackers -------------------------------------------------------------------------


def test_two_runs_in_one_directory(tiny_config, tmp_path):
    settings = load_config(tiny_config(), [])
    given = Run(settings, read_inputs(settings))
    with alone(tmp_path / "run"):
        with pytest.raises(InputError, match="another grail is at work"):
            given.through("vanilla")
        assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock"}
    given.through("vanilla")
    with alone(tmp_path / "run"):  # it was let go
        pass


def test_only_the_main_process_takes_the_lock_and_writes(tiny_config, tmp_path, monkeypatch):
    settings = load_config(tiny_config(), [])
    monkeypatch.setattr(Accelerator, "is_main_process", property(lambda _: False))
    monkeypatch.setattr(Accelerator, "process_index", property(lambda _: 1))
    other = Run(settings, read_inputs(settings))
    assert other.listener.silent
    other.through("vanilla")
    assert not (tmp_path / "run").exists()
    with alone(tmp_path / "run"):  # the main process
        other.through("vanilla")
        assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock"}


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps one state for a process; a test that changes it gives it back."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_precision_is_grails_own(fresh_accelerate, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert Accelerator().mixed_precision == "bf16", "what `accelerate config` may have left behind"
    AcceleratorState._reset_state(reset_partial_state=True)
    assert make_accelerator().mixed_precision == "no"


def test_a_tracker_writes_into_the_run_directory(tiny_config, run, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    config = tiny_config(unlearning={"trackers": ["tensorboard"]})
    run("run", config)
    events = [path for path in tmp_path.rglob("events.out.tfevents*") if path.stat().st_size]
    assert events
    assert all(tmp_path / "run" in path.parents for path in events)


def test_single_stages_do_what_they_need_and_no_more(tiny_config, run, tmp_path):
    config, folder = tiny_config(), tmp_path / "run"
    wanted = {
        "vanilla": "vanilla/stage.json",
        "score": "scores/privacy.unlearn.safetensors",
        "localize": "mask.safetensors",
        "unlearn": "unlearned/stage.json",
        "evaluate": "results.json",
        "report": "report.md",
    }
    for stage, name in wanted.items():
        assert not (folder / name).exists()
        done, _ = run(stage, config)
        assert {word.split()[0] for word in done} == ({stage} if stage != "report" else set())
        assert (folder / name).exists()


def test_dropout_does_not_reach_scores_and_evaluation(tiny_config, run, tmp_path):
    lora = {"model": {"lora": {"r": 2, "dropout": 0.3}}}
    run("run", tiny_config(**lora))
    second = tiny_config(name="second", **lora)
    for stage in ("vanilla", "score", "unlearn", "run"):  # a fresh model object for each
        run(stage, second)
    one, other = files(tmp_path / "run"), files(tmp_path / "second")
    assert set(differing(one, other)) <= {"config.yaml", "report.md", "report.html"}


def clear_bits(data):
    """Clear all that a safetensors file holds, its header apart."""
    start = 8 + int.from_bytes(data[:8], "little")
    return data[:start] + bytes(len(data) - start)


def flip_one_bit(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def change_numbers(data):
    return re.sub(rb": [0-9][0-9.e-]*", b": 7", data)


def unseal(data):
    """Leave out what the file says of its own content, as in files of an older grail."""
    return json.dumps({k: v for k, v in json.loads(data).items() if k != "sha256"}).encode()


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("mask.safetensors", clear_bits),
        ("mask.safetensors", flip_one_bit),
        ("scores/privacy.unlearn.safetensors", clear_bits),
        ("scores/copyright.retain.safetensors", flip_one_bit),
        ("localization.json", change_numbers),
        ("evaluation/unlearned.json", change_numbers),
        ("evaluation/vanilla.json", unseal),
        ("unlearned/stage.json", change_numbers),
        ("results.json", change_numbers),
        ("samples.jsonl", change_numbers),
        ("vanilla/tokenizer.json", lambda data: data + b" "),
        ("unlearned/adapter_config.json", change_numbers),
        ("config.yaml", lambda data: data + b"# edited"),
    ],
)
def test_what_was_edited_is_named_and_made_again(name, edit, finished, tmp_path, capsys):
    config, folder = finished(), tmp_path / "run"
    before = files(folder)
    edited = edit((folder / name).read_bytes())
    assert edited != (folder / name).read_bytes()
    (folder / name).write_bytes(edited)
    capsys.readouterr()
    reported = main(["report", str(folder)])
    err = capsys.readouterr().err
    if name in manifest.REPORTED:
        assert reported == 2
        assert f"{folder / name} is not as grail wrote it" in err
        assert "Traceback" not in err
    else:
        assert reported == 0, err
    assert main(["run", str(config)]) == 0
    named = folder / name.removesuffix("/stage.json")
    assert f"{named} is not as grail wrote it" in capsys.readouterr().err
    assert not differing(before, files(folder))


def test_a_log_that_was_edited_is_refused_and_can_be_left_out(finished, tmp_path, capsys):
    """Only a new training could make it again; without it the report goes without the curve."""
    config, log = finished(), tmp_path / "run" / "train.jsonl"
    log.write_bytes(log.read_bytes() + b" ")
    for command in (["report", str(log.parent)], ["audit", str(log.parent)], ["run", str(config)]):
        assert main(command) == 2
        assert f"{log} is not as grail wrote it" in capsys.readouterr().err
    log.unlink()
    assert main(["run", str(config)]) == 0
    assert manifest.problems(log.parent) == []


def test_settings_edited_in_the_run_directory_are_refused(finished, tmp_path, capsys):
    finished()
    file, shown = tmp_path / "run" / "config.yaml", ["--adapter", "--output", str(tmp_path / "out")]
    content = file.read_text()
    for changed in ("seed: 1", "seed: O"):  # the second is not even a setting
        file.write_text(content.replace("seed: 0", changed))
        for command in ("run", "audit", "report", "validate", "plan", "export"):
            more = shown if command == "export" else []
            assert main([command, str(file.parent), *more]) == 2
            assert f"{file} is not as grail wrote it" in capsys.readouterr().err


def test_weights_changed_by_hand_are_not_certified(finished, run, tmp_path):
    """What the proof says was true when training ended; the files must still be those."""
    config, folder = finished(), tmp_path / "run"
    before, file = files(folder), folder / "unlearned" / "adapter_model.safetensors"
    values = load_file(file)
    next(iter(values.values())).add_(1.0)
    save_file(values, file, {"format": "pt"})
    run("report", folder)  # reads no weights
    done, _ = run("run", config)
    assert done[0] == "unlearn"
    assert not differing(before, files(folder))


def test_weights_that_are_no_numbers_stop_the_run_with_a_message(finished, tmp_path, capsys):
    config, folder = finished(), tmp_path / "run"
    (folder / "evaluation" / "unlearned.json").unlink()
    (folder / "samples.jsonl").unlink()
    file = folder / "unlearned" / "adapter_model.safetensors"
    save_file({k: torch.full_like(v, float("nan")) for k, v in load_file(file).items()}, file)
    values = stamp(file.parent) | {"weights": weights_digest(file.parent)}
    write_json(file.parent / "stage.json", values)  # as if training had made them
    manifest.drop(folder)
    manifest.record(folder)
    capsys.readouterr()
    assert main(["run", str(config)]) == 1
    err = capsys.readouterr().err
    assert "NLL of the unlearned model" in err
    assert "Traceback" not in err
    assert not (folder / "results.json").exists()
    assert not (folder / "samples.jsonl").exists()


@pytest.mark.parametrize("lora", [{"r": 2}, None])
def test_the_calibrated_model_keeps_as_much_as_wished(lora, finished, run, tmp_path):
    config = finished(model={"lora": lora}, unlearning={"learning_rate": 0.02})
    done, _ = run("run", config)
    assert "evaluate calibrated" not in done
    before = files(tmp_path / "run")

    def kept(target):
        done, again = run("run", config, "--set", f"evaluation.retain_target={target}")
        assert {"evaluate vanilla", "evaluate unlearned", "unlearn"} <= set(again)
        assert done == ["evaluate calibrated", "report"]
        found = json.loads((tmp_path / "run" / "evaluation" / "calibrated.json").read_text())
        results = read_results(tmp_path / "run" / "results.json")
        measured = {
            model: {(r.domain, r.side, r.metric): r.value for r in results.rows if r.model == model}
            for model in ("vanilla", "unlearned", "calibrated")
        }
        train = {m: results.summary["train"][m] for m in measured}
        return found["weight"], measured, train

    rates = [
        r.value
        for r in read_results(tmp_path / "run" / "results.json").rows
        if (r.model, r.metric, r.part) == ("unlearned", "RS", "train")
    ]
    mean = sum(rates) / len(rates)
    weight, measured, train = kept(max(mean - 0.01, 0.01))
    assert weight == 1.0
    assert measured["calibrated"] == measured["unlearned"]
    assert train["calibrated"] == train["unlearned"]
    weight, measured, _ = kept(100)
    if weight == 0:
        assert measured["calibrated"] == measured["vanilla"]
    after = files(tmp_path / "run")
    assert "results.json" in differing(before, after)
    assert not [n for n in differing(before, after) if n.startswith(("unlearned/", "vanilla/"))]
