"""The exported folder answers as the run did, in a process without grail and its paths."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from grail.cli.main import main
from grail.errors import InputError
from grail.handover import export as module
from grail.handover.copies import copies_of
from grail.handover.export import export, push
from grail.handover.opened import open_run
from grail.model.probe import logits_of, short_row
from grail.model.save import load_weights

CHILD = """
import sys, json, torch
sys.modules["grail"] = None  # an import of it fails
for code, out in json.loads(sys.argv[1]):
    space = {}
    exec(code, space)
    if out:
        row = torch.tensor([json.loads(sys.argv[2])])
        torch.save(space["model"](input_ids=row).logits[0].detach(), out)
"""


def code_of(folder, base="", before="", after=""):
    (code,) = re.findall(r"```python\n(.+?)```", (folder / "README.md").read_text(), re.DOTALL)
    for word, value in (("FOLDER", folder), ("BASE", base), ("BEFORE", before), ("AFTER", after)):
        code = code.replace(f'"{word}', f'"{value}')
    return re.sub(r'dtype="(\w+)"', r'dtype="\1", attn_implementation="eager"', code)


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    """Folder of each form, and what ``export`` returned. Tests must not change them."""
    root = tmp_path_factory.mktemp("exported")
    found = {form: export(finished_run, form, root / form) for form in module.FORMS}
    for name in ("copies.json", "attestation.key"):  # others read the run, too
        (finished_run / name).unlink()
    return root, found


@pytest.mark.slow
def test_the_codes_of_the_cards_give_the_runs_own_logits(
    exported, finished_run, tiny_model_folder, tmp_path
):
    root, _ = exported
    model = open_run(finished_run).model
    load_weights(model, finished_run / "unlearned")
    row = short_row(model)
    before, after = finished_run / "vanilla", tmp_path / "after.safetensors"
    codes = [
        (code_of(root / "adapter", base=tiny_model_folder), str(tmp_path / "adapter")),
        (code_of(root / "merge"), str(tmp_path / "merge")),
        (code_of(root / "delta", "", before / "adapter_model.safetensors", after), ""),
    ]
    command = [sys.executable, "-c", CHILD, json.dumps(codes), json.dumps(row.tolist())]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PATH": "", "HF_HUB_OFFLINE": "1"})
    wanted = logits_of(model, row)
    assert torch.equal(torch.load(tmp_path / "adapter"), wanted)
    torch.testing.assert_close(torch.load(tmp_path / "merge"), wanted, atol=1e-4, rtol=1e-4)
    assert (
        after.read_bytes()
        == (finished_run / "unlearned" / "adapter_model.safetensors").read_bytes()
    )
    load_weights(model, before)
    assert not torch.allclose(logits_of(model, row), wanted, atol=1e-2), "the models differ"


def test_no_file_names_a_path_of_this_machine(exported, finished_run, tiny_model_folder):
    root, found = exported
    for form in module.FORMS:
        files = [file for file in (root / form).rglob("*") if file.is_file()]
        assert {file.name for file in files} == set(found[form]["files"])
        assert "tokenizer.json" in found[form]["files"]
        for file in files:
            for path in (finished_run.parent, tiny_model_folder.parent, root):
                assert str(path).encode() not in file.read_bytes(), file
    settings = json.loads((root / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == tiny_model_folder.name
    for form in ("merge", "adapter"):
        assert (root / form / "generation_config.json").is_file()


def test_a_merge_has_the_type_of_the_base_and_tells_its_rounding(
    finished, tiny_model, tiny_tokenizer, tmp_path
):
    base = tmp_path / "half"
    tokenizer = tiny_tokenizer(chat=True)
    tiny_model(lora=False, tied=False, vocabulary=len(tokenizer)).bfloat16().save_pretrained(base)
    tokenizer.save_pretrained(base)
    config = finished(model={"name": str(base)}, data={"template": "auto"})
    shutil.rmtree(tmp_path / "run" / "unlearned")  # a result of another model is not replaced
    assert main(["run", str(config)]) == 0
    found = export(tmp_path / "run", "merge", tmp_path / "out")
    kinds = {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()}
    assert kinds == {torch.bfloat16}
    (said,) = found["remarks"]
    assert "written in bfloat16" in said
    assert 1e-4 < float(re.search(r"differ by at most (\S+)", said)[1]) < 1
    assert (tmp_path / "out" / "chat_template.jinja").is_file()
    assert [copy["kind"] for copy in copies_of(tmp_path / "run")] == ["merge"]


def test_full_weights_are_taken_as_they_are(runs, tmp_path):
    folder = runs["run"]
    export(folder, "merge", tmp_path / "out")
    (folder / "copies.json").unlink()
    one, other = (p / "model.safetensors" for p in (folder / "unlearned", tmp_path / "out"))
    assert one.read_bytes() == other.read_bytes()
    assert not (tmp_path / "out" / "stage.json").exists()
    with pytest.raises(InputError, match="has no adapter"):
        export(folder, "adapter", tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_a_folder_that_is_not_empty_is_left_alone(finished_run, tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="exists already"):
        export(finished_run, "merge", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_upload_is_private_and_refused_where_it_cannot_succeed(tmp_path, monkeypatch):
    import huggingface_hub

    calls = []

    class Client:
        endpoint = "https://hub"

        def create_repo(self, name, private, exist_ok):
            calls.append((name, private, exist_ok))

        def upload_folder(self, repo_id, folder_path):
            if len(calls) > 1:
                raise OSError("no route")
            calls.append((repo_id, folder_path))

    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    with pytest.raises(InputError, match="Give OWNER/NAME"):
        push(tmp_path, "a/b/c")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        push(tmp_path, "a/b")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(InputError, match="hf auth login"):
        push(tmp_path, "a/b")
    assert calls == []
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    assert push(tmp_path, "a/b") == "https://hub/a/b"
    assert calls == [("a/b", True, True), ("a/b", tmp_path)]
    with pytest.raises(InputError, match=r"\(no route\)\. Try again: hf upload a/b"):
        push(tmp_path, "a/b")


def test_a_base_in_few_bits_is_merged_in_full_and_the_card_says_so(tiny_config, tmp_path):
    pytest.importorskip("bitsandbytes")
    file = tiny_config(
        model={"quantise": "nf4"}, domains=("privacy",), teach={"epochs": 1}, name="few"
    ).as_posix()
    assert main(["run", file]) == 0
    (remark, rounding) = export(tmp_path / "few", "merge", tmp_path / "merged")["remarks"]
    assert "measured this adapter on the base in nf4" in remark
    card = (tmp_path / "merged" / "README.md").read_text()
    assert remark in card
    assert rounding in card
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert main(["verify", str(tmp_path / "few")]) == 0
