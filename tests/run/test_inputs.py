"""Everything that is wrong before a model is loaded, found at once."""

import json
import os

import pytest

from grail.config.file import load_config
from grail.errors import InputError
from grail.run.inputs import check_adapter, check_output, check_unlearning, read_inputs
from grail.unlearning.objectives import OBJECTIVES


def test_good_inputs_are_read_and_digested(tiny_config):
    inputs = read_inputs(load_config(tiny_config(), []))
    assert len(inputs.samples) == 2 * 2 * (4 + 2)
    assert len(inputs.general) == 1
    assert not inputs.warnings
    parts = {f"{d}.{s}.{p}" for d in ("privacy", "copyright") for s in ("unlearn", "retain")
             for p in ("train", "val")}  # fmt: skip
    assert set(inputs.digests) == parts | {"general.general.train"}


def test_general_tasks_are_read_with_everything_else(tiny_config, tmp_path, monkeypatch):
    row = {"id": "a", "context": "", "question": "q?", "choices": ["x", "y"], "answer": 1}
    file = tmp_path / "sky.jsonl"
    file.write_text(json.dumps(row))
    config = tiny_config(evaluation={"general_tasks": ["mmlu", str(file)]})
    monkeypatch.setattr("grail.evaluation.general.harness.find_spec", lambda name: "installed")
    inputs = read_inputs(load_config(config, []))
    mmlu, sky = inputs.tasks
    assert (mmlu, sky.name, len(sky.items)) == ("mmlu", "sky", 1)
    assert "evaluation.sky.choices" in inputs.digests
    file.write_text(json.dumps(row | {"answer": 2}))
    with pytest.raises(InputError, match=r"sky\.jsonl line 1: answer must be from 0 to 1"):
        read_inputs(load_config(config, ["model.name=/no/such/model"]))
    file.write_text(json.dumps(row))
    monkeypatch.setattr("grail.evaluation.general.harness.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed") as caught:
        read_inputs(load_config(config, ["model.name=/no/such/model"]))
    assert "model.name: /no/such/model" in str(caught.value)


def test_every_problem_is_named_at_once(tiny_config, tmp_path):
    config = tiny_config(teach={"adapter": str(tmp_path / "none")})
    (tmp_path / "data" / "privacy_unlearn_train.jsonl").write_text("{\n")
    (tmp_path / "data" / "general.jsonl").unlink()
    (tmp_path / "run").touch()

    wrong = (
        "model.name=/no/such/model",
        "localization.method=gral",
        "unlearning.objective=nppo",
    )
    with pytest.raises(InputError) as caught:
        read_inputs(load_config(config, list(wrong)))
    text = str(caught.value)
    wanted = ("privacy_unlearn_train.jsonl line 1", "general.train: ", "model.name: /no/such/model")
    settings = ("localization.method: 'gral'", "unlearning.objective: 'nppo'")
    for piece in (*wanted, *settings, "teach.adapter: ", "output: "):
        assert piece in text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("localization.method=gral", "localization.method"),
        ("unlearning.objective=nppo", "unlearning.objective"),
        ("unlearning.unlearn_weight=0", "unlearning.unlearn_weight"),
        ("unlearning.retain_weight=0", "unlearning.retain_weight"),
        ("unlearning.phases=[[privacy],[copyrite]]", "unlearning.phases"),
    ],
)
def test_each_setting_is_checked_by_itself(change, named, tiny_config):
    with pytest.raises(InputError, match=named) as caught:
        read_inputs(load_config(tiny_config(), [change]))
    assert "\n" not in str(caught.value)


# what is set -> what the message says
UNLEARNING = [
    (
        ["unlearning.phases=[[privacy],[copyrite,privcy]]"],
        "unlearning.phases: copyrite, privcy is not among the domains. "
        "Allowed: privacy, copyright.",
    ),
    (
        ["unlearning.retain_rows=general", "general.train=null"],
        "read the general text, but general.train is null.",
    ),
    (
        ["unlearning.objective=ascent_kl", "unlearning.retain_rows=general", "general.train=null"],
        "use retain_rows: domain and general_weight: 0.",
    ),
    (["unlearning.general_weight=0.5", "general.train=null"], "but general.train is null."),
    (
        ["unlearning.general_weight=0.5", "unlearning.retain_rows=general"],
        "the retain term reads the general text already.",
    ),
    (["unlearning.phases=[[privacy, privacy]]"], "a domain stands twice in one phase."),
    (
        ["unlearning.objective=ascent_descent", "unlearning.beta=0.1"],
        "unlearning.beta: ascent_descent has no beta.",
    ),
    (
        ["unlearning.objective=npo", "unlearning.delta=0.1"],
        "unlearning.delta: npo has no delta.",
    ),
    (
        ["unlearning.objective=jensun", "unlearning.max_token_nll=12"],
        "unlearning.max_token_nll: jensun has no max_token_nll. Set it to null",
    ),
    (["unlearning.objective=undial", "unlearning.rectify=true"], "unlearning.rectify: undial"),
    (["unlearning.objective=ascent", "unlearning.rectify=true"], "unlearning.rectify: ascent"),
    (["unlearning.objective=ascent_kl", "unlearning.retain_weight=0"], "retain_weight: 0 leaves"),
    (
        ["unlearning.objective=exact", "localization.method=none", "teach=null"],
        "Give teach: true, and no teach.adapter.",
    ),
    (
        ["unlearning.objective=exact", "localization.method=none", "teach.adapter=x"],
        "unlearning.objective: exact trains the vanilla model again without the unlearn rows",
    ),
    (["unlearning.objective=exact"], "Set localization.method: none."),
    (
        ["unlearning.objective=exact", "localization.method=random"],
        "there is nothing to freeze",
    ),
    (
        ["unlearning.objective=exact", "localization.method=none", "unlearning.general_weight=1"],
        "unlearning.general_weight: exact trains a new model as the section teach says",
    ),
    (
        [
            "unlearning.objective=exact",
            "localization.method=none",
            "unlearning.phases=[[privacy]]",
        ],
        "unlearning.phases: exact trains a new model as the section teach says",
    ),
]


@pytest.mark.parametrize(("changes", "text"), UNLEARNING)
def test_unlearning_that_makes_no_sense_is_refused(changes, text, tiny_config):
    with pytest.raises(InputError) as caught:
        check_unlearning(load_config(tiny_config(), changes))
    assert str(caught.value).startswith("unlearning.")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        ["unlearning.phases=[[copyright],[privacy]]"],
        ["unlearning.phases=[[copyright]]"],
        ["unlearning.retain_rows=general"],
        ["general.train=null"],
        ["unlearning.retain_rows=general", "general.train=null", "unlearning.objective=ascent"],
        ["unlearning.objective=exact", "localization.method=none"],
        ["unlearning.rectify=true", "localization.freeze=by_side"],
    ],
)
def test_unlearning_that_makes_sense_passes(changes, tiny_config):
    check_unlearning(load_config(tiny_config(), changes))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_passes(name, tiny_config):
    changes = [f"unlearning.objective={name}", "localization.method=none"]
    check_unlearning(load_config(tiny_config(), changes))


def test_a_problem_that_two_checks_find_is_named_once(tiny_config, tmp_path):
    (tmp_path / "adapter_config.json").touch()
    config = tiny_config(teach={"adapter": str(tmp_path)}, model={"name": "/no/such/model"})
    with pytest.raises(InputError) as caught:
        read_inputs(load_config(config, []))
    assert str(caught.value).count("/no/such/model") == 1


def test_the_same_rows_on_both_sides_are_refused_and_similar_ones_reported(tiny_config, tmp_path):
    config = tiny_config(domains=("d",), val=0)
    same, other = (tmp_path / "data" / f"d_{side}_train.jsonl" for side in ("unlearn", "retain"))
    text = same.read_text()
    other.write_text(text.replace('"completion": "', '"completion": "x'))
    assert "nearly the same" in read_inputs(load_config(config, [])).warnings[0]
    other.write_text(text)
    with pytest.raises(InputError, match="cannot be unlearned and stay"):
        read_inputs(load_config(config, []))


def test_an_adapter_is_a_peft_folder(tiny_config, tmp_path):
    check_adapter(load_config(tiny_config(), []))
    given = load_config(tiny_config(teach={"adapter": str(tmp_path)}), [])
    with pytest.raises(InputError, match=r"^teach\.adapter: .* is not a PEFT adapter folder"):
        check_adapter(given)
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(InputError, match="is not a PEFT configuration"):
        check_adapter(given)
    (tmp_path / "adapter_config.json").write_text("{}")
    check_adapter(given)


def test_an_adapter_of_a_base_that_is_not_here_is_a_warning(tiny_config, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name"}')
    given = load_config(tiny_config(teach={"adapter": str(tmp_path)}), [])
    (warning,) = read_inputs(given).warnings
    assert "names the base owner/name" in warning
    assert given.model.name in warning


def test_an_adapter_on_an_adapter_is_refused(tiny_config, tiny_model_folder, tmp_path):
    model, on_top = tmp_path / "a", tmp_path / "b"
    for folder in (model, on_top):
        folder.mkdir()
        base = {"base_model_name_or_path": str(tiny_model_folder)}
        (folder / "adapter_config.json").write_text(json.dumps(base))
    check_adapter(load_config(tiny_config(model={"name": str(model)}), []))
    both = tiny_config(model={"name": str(model)}, teach={"adapter": str(on_top)})
    with pytest.raises(InputError, match=r"^teach\.adapter: model\.name .* is an adapter too"):
        check_adapter(load_config(both, []))


def test_an_output_is_new_or_empty_or_a_run(tmp_path):
    check_output(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()
    folder = tmp_path / "folder"
    folder.mkdir()
    check_output(folder)
    (folder / ".lock").touch()  # hidden files say nothing
    check_output(folder)
    (folder / "config.yaml.partial").touch()  # killed at the first write
    check_output(folder)
    (folder / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex\)"):
        check_output(folder)
    for foreign in ("", "a: b", "- made_with", "made_with", "[", "\x00"):
        (folder / "config.yaml").write_text(foreign)  # thousands of tools have a config.yaml
        with pytest.raises(InputError, match="no config\\.yaml that a run"):
            check_output(folder)
    (folder / "config.yaml").write_text("seed: 0\nmade_with:\n  grail: '0'\n")
    check_output(folder)
    for below in (folder / "thesis.tex", folder / "thesis.tex" / "run"):
        with pytest.raises(InputError, match=r"thesis.tex is a file"):
            check_output(below)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_an_output_can_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written to"):
        check_output(tmp_path / "run")
    tmp_path.chmod(0o700)
