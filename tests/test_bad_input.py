"""Whatever is wrong: exit code 2, a message that says where, and nothing is created or changed."""

import json
import os
import shutil

import pytest
import yaml

from grail.cli.main import main
from grail.results import Results, write_results


def setting(*overrides, **sections):
    """A configuration with these sections, and these ``--set``."""

    def prepare(make, folder):
        extra = [word for text in overrides for word in ("--set", text)]
        return ["run", str(make(**sections)), *extra]

    return prepare


def data(name, text, **sections):
    """One data file replaced by ``text`` (None: removed)."""

    def prepare(make, folder):
        config = make(**sections)
        file = folder / "data" / f"{name}.jsonl"
        file.unlink() if text is None else file.write_text(text)
        return ["run", str(config)]

    return prepare


def written(text, name="run.yaml"):
    """The configuration file holds ``text`` (bytes)."""

    def prepare(make, folder):
        make()
        (folder / name).write_bytes(text)
        return ["run", str(folder / name)]

    return prepare


def no_config(make, folder):
    return ["run", str(folder / "none.yaml")]


def empty_folder(make, folder):
    (folder / "empty").mkdir()
    return ["run", str(folder / "empty")]


def same_file_for_both_sides(make, folder):
    config = make()
    values = yaml.safe_load(config.read_text())
    sides = values["domains"]["privacy"]
    sides["retain"] = sides["unlearn"]
    config.write_text(yaml.safe_dump(values))
    return ["run", str(config)]


def val_is_train(make, folder):
    config = make()
    shutil.copy(
        folder / "data" / "privacy_unlearn_train.jsonl",
        folder / "data" / "privacy_unlearn_val.jsonl",
    )
    return ["run", str(config)]


def embedded(make, folder):
    config = make()
    values = yaml.safe_load(config.read_text())
    values["domains"]["privcy"] = {s: {"train": "embedded"} for s in ("unlearn", "retain")}
    config.write_text(yaml.safe_dump(values))
    return ["run", str(config)]


def model_folder_without_config(make, folder):
    (folder / "model").mkdir()
    return ["run", str(make(model={"name": str(folder / "model")}))]


def model_of_half_a_file(make, folder):
    """config.json is there, the weights are cut: known only once the model is read."""
    config = make()
    name = yaml.safe_load(config.read_text())["model"]["name"]
    shutil.copytree(name, folder / "model")
    file = folder / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    return ["run", str(make(model={"name": str(folder / "model")}))]


def model_of_few_positions(make, folder):
    config = make()
    name = yaml.safe_load(config.read_text())["model"]["name"]
    shutil.copytree(name, folder / "model")
    file = folder / "model" / "config.json"
    few = json.loads(file.read_text()) | {"max_position_embeddings": 12}
    file.write_text(json.dumps(few))
    return ["run", str(make(model={"name": str(folder / "model")}))]


def chat_template(first, said="{{ m.content }}", end="<eos>"):
    """Rows under a chat template that treats one of them in its own way."""

    def build(make, folder):
        config = make()
        name = yaml.safe_load(config.read_text())["model"]["name"]
        shutil.copytree(name, folder / "model")
        template = first + "{% for m in messages %}" + said + end + "{% endfor %}"
        (folder / "model" / "chat_template.jinja").write_text(template)
        rows = [{"prompt": p, "completion": f"secret {p}"} for p in ("even?", "odd?")]
        file = folder / "data" / "privacy_retain_val.jsonl"
        values = {"model": {"name": str(folder / "model")}, "data": {"template": "auto"}}
        config = make(**values)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return ["run", str(config)]

    return build


def adapter_on_an_adapter(make, folder):
    config = make()
    base = yaml.safe_load(config.read_text())["model"]["name"]
    for name in ("a", "b"):
        (folder / name).mkdir()
        settings = {"peft_type": "LORA", "base_model_name_or_path": base}
        (folder / name / "adapter_config.json").write_text(json.dumps(settings))
    sections = {"model": {"name": str(folder / "a")}, "teach": {"adapter": str(folder / "b")}}
    return ["run", str(make(**sections))]


def adapter_of_another_model(make, folder):
    (folder / "adapter").mkdir()
    settings = {"peft_type": "LORA", "target_modules": ["nothing_here"], "task_type": "CAUSAL_LM"}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    return ["run", str(make(teach={"adapter": str(folder / "adapter")}))]


def output_is_a_file(make, folder):
    (folder / "taken").write_text("mine")
    return ["run", str(make()), "--output", str(folder / "taken")]


def output_below_a_file(make, folder):
    (folder / "taken").write_text("mine")
    return ["run", str(make()), "--output", str(folder / "taken" / "run")]


def output_of_somebody_else(make, folder):
    (folder / "thesis").mkdir()
    (folder / "thesis" / "thesis.tex").write_text("mine")
    return ["run", str(make()), "--output", str(folder / "thesis")]


def output_of_another_tool(make, folder):
    (folder / "site").mkdir()
    (folder / "site" / "config.yaml").write_text("title: my page\n")
    return ["run", str(make()), "--output", str(folder / "site")]


def results_that_are_none(make, folder):
    config = make()
    (folder / "run").mkdir()
    (folder / "run" / "results.json").write_text('{"rows": [')
    shutil.copy(config, folder / "run" / "config.yaml")
    return ["report", str(folder / "run")]


def results_without_the_rest(make, folder):
    (folder / "run").mkdir()
    write_results(folder / "run" / "results.json", Results((), {}, {}))
    return ["report", str(folder / "run")]


CASES = {
    # name: (what the user did, what the message must name)
    "no config": (no_config, ["none.yaml does not exist"]),
    "a folder without config": (empty_folder, ["empty", "config.yaml does not exist"]),
    "broken YAML": (written(b"model: {name: x\nseed: 1\n"), ["run.yaml line 2", "not valid YAML"]),
    "a list as config": (written(b"- a\n"), ["run.yaml", "got list"]),
    "an empty config": (written(b""), ["run.yaml"]),
    "bytes as config": (written(b"\xff\xfe\x00"), ["run.yaml"]),
    "no domains": (written(b"seed: 1\n"), ["domains is missing"]),
    "unknown section": (setting(localisation={}), ["localisation", "Did you mean 'localization'"]),
    "unknown key": (setting("unlearning.lr=1"), ["unknown key unlearning.lr"]),
    "wrong type": (setting("seed=many"), ["seed", "'many'"]),
    "a number in words": (setting("teach.epochs=two"), ["teach.epochs", "'two'"]),
    "k in percent": (setting("localization.k_op_ur=10"), ["k_op_ur", "Did you mean 0.1?"]),
    "k of zero": (setting("localization.k_op_rr=0"), ["localization.k_op_rr"]),
    "unknown localizer": (setting("localization.method=gral"), ["Did you mean 'grail'"]),
    "unknown objective": (
        setting("unlearning.objective=nppo"),
        ["unlearning.objective", "Did you mean 'npo'", "ascent_descent"],
    ),
    "unknown preset": (setting("preset=grial"), ["preset: 'grial'", "Did you mean 'grail'"]),
    "a preset that is no name": (setting("preset={grail: 1}"), ["preset: {'grail': 1}"]),
    "a phase of no domain": (
        setting("unlearning.phases=[[privacy],[copyrite]]"),
        ["unlearning.phases", "copyrite"],
    ),
    "no phases": (setting("unlearning.phases=[]"), ["unlearning.phases", "at least one"]),
    "an empty phase": (setting("unlearning.phases=[[]]"), ["unlearning.phases.0", "at least one"]),
    "no general rows to retain": (
        setting("unlearning.retain_rows=general", "general.train=null"),
        ["unlearning.retain_rows: general", "general.train is null"],
    ),
    "nothing to rectify for": (
        setting("unlearning.objective=ascent", "unlearning.rectify=true"),
        ["unlearning.rectify"],
    ),
    "exact under a mask": (
        setting("unlearning.objective=exact"),
        ["unlearning.objective: exact", "localization.method: none"],
    ),
    "exact without a vanilla stage": (
        setting("unlearning.objective=exact", "localization.method=none", "teach=null"),
        ["unlearning.objective: exact", "teach: true"],
    ),
    "unknown optimizer": (setting("unlearning.optimizer=adam"), ["unlearning.optimizer", "adamw"]),
    "random by side": (
        setting("localization.method=random", "localization.freeze=by_side"),
        ["localization.freeze"],
    ),
    "no unlearn weight": (setting("unlearning.unlearn_weight=0"), ["unlearning.unlearn_weight"]),
    "all weights in float16": (
        setting("model.lora=null", "model.dtype=float16"),
        ["model", "float16 cannot train all weights"],
    ),
    "no retain weight": (setting("unlearning.retain_weight=0"), ["unlearning.retain_weight"]),
    "the old name": (setting("vanilla.epochs=2"), ["vanilla", "teach"]),
    "the old switch": (setting("vanilla.skip=true"), ["vanilla.skip", "Leave"]),
    "set without a value": (setting("seed"), ["--set needs KEY=VALUE"]),
    "set below a value": (
        setting("teach.epochs.deep=1"),
        ["teach.epochs.deep=1", "not a section"],
    ),
    "set to broken YAML": (setting("seed=[1"), ["--set seed=[1"]),
    "missing data": (data("privacy_retain_val", None), ["privacy.retain.val", "does not exist"]),
    "broken JSON": (
        data("privacy_unlearn_train", '{"prompt": "a", "completion": "b"}\n{"pro\n'),
        ["privacy_unlearn_train.jsonl line 2", "not valid JSON"],
    ),
    "wrong keys": (
        data("privacy_unlearn_train", '{"input": "a", "output": "b"}\n'),
        ["domains.privacy.unlearn.train", "line 1", "keys found: 2 others"],
    ),
    "a number as text": (
        data("copyright_retain_val", '{"prompt": "a", "completion": 7}\n'),
        ["line 1", "completion must be text"],
    ),
    "an empty side": (data("copyright_unlearn_train", "\n"), ["copyright.unlearn.train", "empty"]),
    "one file for both sides": (same_file_for_both_sides, ["same file twice", "privacy.unlearn"]),
    "val is train": (val_is_train, ["privacy.unlearn.val", "same file twice"]),
    "broken general rows": (data("general", "{}\n"), ["general.train", "line 1"]),
    "unknown embedded domain": (embedded, ["domains.privcy", "Did you mean 'privacy'"]),
    "no such model": (setting("model.name=/no/such/model"), ["model.name", "/no/such/model"]),
    "no such Hub model": (
        setting("model.name=nobody/nothing-at-all"),
        ["model.name", "nobody/nothing-at-all"],
    ),
    "a folder that is no model": (model_folder_without_config, ["model.name", "config.json"]),
    "half a model": (model_of_half_a_file, ["model.name"]),
    "no such GGUF": (setting("model.name=/no/such.gguf"), ["model.name", "/no/such.gguf"]),
    "no such adapter": (setting("teach.adapter=/no/such"), ["teach.adapter", "/no/such"]),
    "an adapter on an adapter": (adapter_on_an_adapter, ["teach.adapter", "an adapter too"]),
    "another model's adapter": (adapter_of_another_model, ["teach.adapter", "adapter"]),
    "modules that are not there": (
        setting("model.lora.target_modules=[nothing]"),
        ["model.lora.target_modules", "nothing"],
    ),
    "too few positions": (model_of_few_positions, ["data.max_tokens", "has positions for 12"]),
    "a row the chat template refuses": (
        chat_template("{{ raise_exception('no') if messages[0].content == 'odd?' }}"),
        ["privacy.retain.val.1: ", "/model refuses", "(no)", "data.template"],
    ),
    "a row the chat template rewrites": (
        chat_template("", "{{ m.content.replace('odd', 'even') }}"),
        ["privacy.retain.val.1: ", "/model does not write", "data.template"],
    ),
    "a row with a control token": (
        data("privacy_retain_val", json.dumps({"prompt": "a?", "completion": "secret<eos>"})),
        ["privacy.retain.val.0: ", "holds <eos>"],
    ),
    "no date": (setting("data.date=today"), ["data.date", "2025-01-31", "'today'"]),
    "no chat template": (setting("data.template=chat"), ["data.template"]),
    "prompts too long": (
        data("privacy_retain_val", json.dumps({"prompt": "q" * 99, "completion": "a"})),
        ["data.max_tokens: 64", "privacy.retain.val.0"],
    ),
    "a long general row": (
        data("general", json.dumps({"prompt": "q" * 99, "completion": "a"})),
        ["data.max_tokens: 64", "general"],
    ),
    "unknown tracker": (setting("unlearning.trackers=[nonsense]"), ["unlearning.trackers"]),
    "output is a file": (output_is_a_file, ["output", "taken is a file"]),
    "output below a file": (output_below_a_file, ["output", "taken is a file"]),
    "output of somebody else": (output_of_somebody_else, ["output", "thesis.tex"]),
    "output of another tool": (output_of_another_tool, ["output", "(config.yaml)"]),
    "results that are none": (results_that_are_none, ["results.json is not as grail wrote it"]),
    "results without the rest": (results_without_the_rest, ["not a finished run", "config.yaml"]),
}


def snapshot(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named_and_changes_nothing(name, tiny_config, tmp_path, capsys):
    prepare, wanted = CASES[name]
    arguments = prepare(tiny_config, tmp_path)
    before = snapshot(tmp_path)
    capsys.readouterr()
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert "Traceback" not in shown.err
    lines = [line for line in shown.err.splitlines() if line.startswith("grail: error: ")]
    for piece in wanted:
        assert piece in "\n".join(lines)
    assert snapshot(tmp_path) == before


def test_a_good_configuration_is_no_bad_input(tiny_config, tmp_path):
    """The cases above differ from a run that works in one thing each."""
    assert main(["vanilla", str(tiny_config())]) == 0


def test_a_finished_run_survives_bad_settings(finished, tmp_path, capsys):
    finished()
    before = snapshot(tmp_path)
    for change in ("data.max_tokens=8", "model.lora.target_modules=[nothing]", "seed=x"):
        assert main(["run", str(tmp_path / "run"), "--set", change]) == 2, change
        assert snapshot(tmp_path) == before, change


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_an_output_that_cannot_be_written(tiny_config, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(["run", str(tiny_config()), "--output", str(tmp_path / "locked" / "run")]) == 2
    assert "cannot be written" in capsys.readouterr().err
