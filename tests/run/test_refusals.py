"""What a run directory refuses, and what it lets be replaced."""

import re
from pathlib import Path

import pytest

from grail.artifacts import STAMP
from grail.cli.main import main
from grail.config import file as config_file
from grail.config.file import COMPARISON
from grail.config.run import parse_config
from grail.errors import InputError
from grail.files import dump_yaml, parse_yaml
from grail.run import manifest
from grail.run.refusals import refuse_comparison, refuse_other, refuse_purged, refuse_run

SIDES = {"unlearn": {"train": "u.jsonl"}, "retain": {"train": "r.jsonl"}}
CONFIG = parse_config({"domains": {"d": SIDES}, "output": "x"})
MADE = {"model": "m", "data": {"d.unlearn.train": "u", "d.retain.train": "r"}}


def test_a_run_of_other_settings_keeps_out_of_a_comparison(tmp_path):
    run = CONFIG.model_copy(update={"output": str(tmp_path)})
    other = run.model_copy(update={"seed": 1})
    config_file.write(tmp_path / "config.yaml", run, {"grail": "1"})
    refuse_run(other, None)
    refuse_comparison(tmp_path / "elsewhere", other)
    with pytest.raises(InputError, match=f"output: {tmp_path} is a run's.*--output"):
        refuse_comparison(tmp_path, run)
    (tmp_path / COMPARISON).mkdir()
    refuse_comparison(tmp_path, other)
    refuse_run(run, tmp_path)  # nothing would be replaced
    refuse_run(other, tmp_path / COMPARISON / "base.yaml")
    for source in (None, tmp_path, tmp_path / "mine.yaml"):
        with pytest.raises(InputError, match=f"output: {tmp_path} is a comparison's.*--output"):
            refuse_run(other, source)


def test_a_comparison_shares_no_run_that_would_lose_its_results(tmp_path):
    run = CONFIG.model_copy(update={"output": str(tmp_path / "shared")})
    (tmp_path / "shared").mkdir()
    config_file.write(tmp_path / "shared" / "config.yaml", run, {"grail": "1"})
    other = run.model_copy(update={"seed": 1})
    refuse_comparison(tmp_path / "own", other)  # a base, perhaps of an earlier day
    (tmp_path / "shared" / "results.json").touch()
    refuse_comparison(tmp_path / "own", run)
    with pytest.raises(InputError, match=r"^shared: .* has the results of a run of other settings"):
        refuse_comparison(tmp_path / "own", other)


def test_a_purged_folder_is_refused_and_a_purge_of_less_is_not(tmp_path):
    config = CONFIG.model_copy(update={"output": str(tmp_path)})
    (tmp_path / "vanilla").mkdir()
    for name in ("vanilla/model.safetensors", "rewrites.json"):
        (tmp_path / name).write_text("x")
    manifest.record_purged(tmp_path, ["rewrites.json"])
    refuse_purged(tmp_path)
    manifest.record_purged(tmp_path, ["vanilla"])
    for refuse in (lambda: refuse_run(config, None), lambda: refuse_comparison(tmp_path, config)):
        with pytest.raises(InputError, match=r"was purged on \d{4}-\d\d-\d\d: the model before"):
            refuse()
    (tmp_path / "manifest.json").write_text("{")
    refuse_purged(tmp_path)


def settings(unlearn="u.jsonl", **more):
    sides = SIDES | {"unlearn": {"train": unlearn}}
    return CONFIG.model_copy(
        update={"domains": parse_config({"domains": {"d": sides}, "output": "x"}).domains, **more}
    )


def made(model="m", unlearn="u", **more):
    return {"model": model, "data": MADE["data"] | {"d.unlearn.train": unlearn} | more}


@pytest.mark.parametrize(
    ("config", "about", "attested", "refused"),
    [
        (settings(), made(), True, None),
        (settings(seed=1), made(), True, None),
        (settings(), made(unlearn="edited"), False, None),
        (settings("copy.jsonl"), made(), True, None),
        (settings(), made(**{"d.unlearn.val": "v", "new.check.val": "c"}), True, None),
        (settings(), made(unlearn="edited"), True, r"other rows \(.*u\.jsonl\)"),
        (settings("two.jsonl"), made(unlearn="two"), False, r"other rows \([^,]*u\.jsonl\)"),
        (settings(), made(model="other"), False, r"another model \(smollm2-135m\)"),
        (settings("two.jsonl"), made("other", "two"), False, r"another model .* and of other rows"),
    ],
)
def test_a_result_of_another_model_or_of_other_rows_is_not_replaced(
    tmp_path, config, about, attested, refused
):
    config_file.write(tmp_path / "config.yaml", settings(), MADE)
    refuse_other(tmp_path, settings("two.jsonl"), made("other", "two"))  # nothing is finished yet
    (tmp_path / "unlearned").mkdir()
    (tmp_path / "unlearned" / STAMP).write_text("{}")
    if attested:
        (tmp_path / "attestation.json").touch()
    if refused is None:
        refuse_other(tmp_path, config, about)
    else:
        with pytest.raises(InputError, match=f"^output: {re.escape(str(tmp_path))} .*{refused}"):
            refuse_other(tmp_path, config, about)


def test_a_run_with_other_rows_leaves_a_finished_one_as_it_is(finished, tmp_path, capsys):
    sections = parse_yaml(finished().read_text())
    before = {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()}
    rows = Path(sections["domains"]["privacy"]["unlearn"]["train"])
    (other := tmp_path / "data" / "second.jsonl").write_text(rows.read_text().replace("?", "!?"))
    sections["domains"]["privacy"]["unlearn"]["train"] = str(other)
    (file := tmp_path / "second.yaml").write_text(dump_yaml(sections))
    assert main(["run", str(file)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"the result of other rows ({rows})" in said
    assert "--output" in said
    assert {f: f.read_bytes() for f in before} == before


@pytest.mark.parametrize(
    "text",
    [
        "made_with: {dat: {}}",
        "made_with: {model: m, data: {}}",
        "{made_with: {model: m, data: []}, model: {name: m}, domains: {}}",
        "{made_with: {model: m, data: {}}, model: m, domains: {}}",
        "{made_with: {model: m, data: {}}, model: {name: m}, domains: {a: b}}",
        "[",
    ],
)
def test_a_result_whose_settings_do_not_say_whose_it_is_stays(text, tmp_path):
    (tmp_path / "unlearned").mkdir()
    (tmp_path / "unlearned" / STAMP).write_text("{}")
    (tmp_path / "config.yaml").write_text(f"{text}\n")
    with pytest.raises(InputError, match="does not say of which model and rows"):
        refuse_other(tmp_path, settings(), MADE)
