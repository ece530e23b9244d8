"""One person's request with the shipped defaults, and a later one that goes on from its result."""

import json
import shutil

import pytest
import yaml

from grail.cli.main import main
from grail.config.file import load_config

FAMILIES = ("llama", "qwen2")


def rows_of(file, first, last):
    return "".join(file.read_text().splitlines(keepends=True)[first:last])


@pytest.fixture(scope="module", params=FAMILIES)
def company(request, tmp_path_factory, tiny_model, tiny_tokenizer, module_config):
    """A model that knows eight rows about people and eight that must stay."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = tiny_tokenizer()
    tiny_model(request.param, lora=False, vocabulary=len(tokenizer)).save_pretrained(
        folder / "base"
    )
    tokenizer.save_pretrained(folder / "base")
    config = module_config(
        domains=("company",),
        rows=8,
        val=0,
        name=f"company-{request.param}",
        model={"name": str(folder / "base"), "lora": None},
        teach={"epochs": 120, "learning_rate": 0.01, "batch_size": 8, "until": 1.0},
    )
    assert main(["vanilla", str(config)]) == 0
    shutil.copytree(config.parent / f"company-{request.param}" / "vanilla", folder / "known")
    for side in ("unlearn", "retain"):
        data = config.parent / "data" / f"company_{side}_train.jsonl"
        shutil.copy(data, folder / f"{side}.jsonl")
    return folder


def requested(folder, name, model, first, **sections):
    """Ask for four of the eight rows to be lost; everything else is the default."""
    (folder / f"{name}.jsonl").write_text(rows_of(folder / "unlearn.jsonl", first, first + 4))
    domains = {
        "person": {"unlearn": {"train": f"{name}.jsonl"}, "retain": {"train": "retain.jsonl"}}
    }
    settings = {
        "model": {"name": str(model)},
        "domains": domains,
        "data": {"template": "plain"},
        "evaluation": {"max_new_tokens": 6},
        **sections,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(settings | {"output": str(folder / name)}))
    assert main(["run", str(file)]) == 0
    rows = json.loads((folder / name / "results.json").read_text())["rows"]
    return {
        tuple(r[k] for k in ("model", "domain", "side", "part", "metric")): r["value"] for r in rows
    }


@pytest.fixture(scope="module")
def first(company):
    return requested(company, "first", company / "known", 0)


def test_four_rows_are_forgotten_and_the_others_kept_by_default(company, first):
    config = load_config(company / "first.yaml")
    assert (config.preset, config.teach) == ("request", None)
    found = {m: first[m, "person", "unlearn", "train", "US"] for m in ("vanilla", "unlearned")}
    assert found["vanilla"] < 5
    assert found["unlearned"] >= 85
    assert first["unlearned", "person", "retain", "train", "RS"] >= 95
    general = {m: first[m, "general", "general", "val", "NLL"] for m in ("vanilla", "unlearned")}
    assert general["unlearned"] <= general["vanilla"] + 0.1
    steps = json.loads((company / "first" / "evaluation" / "steps.json").read_text())
    assert 0 < steps["kept"] <= 100
    report = (company / "first" / "report.md").read_text()
    assert "forgotten" in report
    written = json.loads((company / "first" / "rewrites.json").read_text())["rows"]
    assert written == []  # the base under the adapter knows the rows: it must not guess


def test_a_later_request_goes_on_from_the_last_result_and_says_that_the_first_held(company, first):
    domain = {"check": {"earlier": {"rows": "first.jsonl"}}}
    second = requested(company, "second", company / "first" / "unlearned", 4, **domain)
    before, after = (second[m, "earlier", "check", "val", "RS"] for m in ("vanilla", "unlearned"))
    assert before == pytest.approx(100 - first["unlearned", "person", "unlearn", "train", "US"])
    assert after <= before + 25  # of four rows of few tokens
    nll = {m: second[m, "earlier", "check", "val", "NLL"] for m in ("vanilla", "unlearned")}
    assert nll["unlearned"] >= nll["vanilla"] - 0.2
    assert second["vanilla", "person", "unlearn", "train", "US"] < 30
    assert second["unlearned", "person", "unlearn", "train", "US"] >= 80
    assert second["unlearned", "person", "retain", "train", "RS"] >= 95
    assert "earlier, only measured" in (company / "second" / "report.md").read_text()
