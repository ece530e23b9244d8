"""Fixtures: tiny models, their configurations, and finished runs."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import random
import runpy
import shutil
from pathlib import Path

os.environ |= {  # for this process and for all that it starts; read when torch is imported
    "HF_HUB_OFFLINE": "1",  # no test needs the network
    "OMP_NUM_THREADS": "1",  # the order of a sum, and so its last bits, depend on the threads
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": os.pathsep.join(str(Path(__file__).parent / p) for p in ("../src", "offline")),
    "PYTHONHASHSEED": "random",  # sets are in another order in every process
    "GIT_DIR": os.devnull,  # config.yaml has no revision, which an edit during the tests changes
}

import hypothesis
import jaxtyping
import pytest

hypothesis.settings.register_profile("grail", deadline=None)  # the first example may import much
hypothesis.settings.load_profile("grail")

runpy.run_path(str(Path(__file__).with_name("offline") / "sitecustomize.py"))  # no network

pytest_plugins = ("audited_runs", "comparisons", "trackers")

gc.disable()  # until all is imported


def pytest_collection_finish():
    """Have garbage looked for in what tests make: to look at all that was imported takes long."""
    gc.freeze()
    gc.enable()


SHAPES = ("audit/attacks", "data", "evaluation", "importance", "localization", "model", "training")
SHAPES += ("unlearning", "test_artifacts.py", "test_shapes.py")
"""Tests of the modules whose signatures have shapes: there jaxtyping checks every call."""


@pytest.fixture(autouse=True)
def _unchecked_shapes(request, monkeypatch):
    """Let no shapes be checked in tests of other modules, which make whole runs.

    That takes a third of such a run. The runs that tests share, all fixtures above the scope of a
    function, are checked: they are made before this one. JAXTYPING_DISABLE=0 has all checked.
    """
    place = request.path.relative_to(Path(__file__).parent).as_posix()
    if not place.startswith(SHAPES) and "JAXTYPING_DISABLE" not in os.environ:
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def tiny_model():
    """Make a model: ``tiny_model(family, lora=True, tied=None, seed=0, **settings)``, float32."""
    import tiny

    return tiny.tiny_model


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Make a byte-level tokenizer: ``tiny_tokenizer(bos=True, chat=False, pad=True)``."""
    import tiny

    return tiny.tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_rows():
    """Make encoded samples: ``tiny_rows(count, seed=0, vocabulary=96, prompt=.., answer=..)``."""
    import tiny

    return tiny.tiny_rows


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory):
    """A folder for ``model.name``: Llama, float32, full weights, byte-level tokenizer."""
    import tiny

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tokenizer = tiny.tiny_tokenizer()
    tiny.tiny_model(lora=False, tied=False, vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SMALL = {
    "data": {"template": "plain", "max_tokens": 64},
    "teach": {"epochs": 3, "batch_size": 4, "learning_rate": 0.02, "checkpoint_steps": 2},
    "importance": {"trials": 2, "batch_tokens": 128},
    "unlearning": {
        "objective": "ascent_descent",
        "epochs": 2,
        "batch_size": 2,
        "learning_rate": 0.01,
        "checkpoint_steps": 2,
        "until": {"row_accuracy": None},
    },
    "evaluation": {"max_new_tokens": 6, "batch_size": 12},
}
"""A run of the tiny model in about a second: every stage, several steps and batches in each."""


def _tiny_data(folder, domains, rows, val):
    """Write distinct rows of four to nine bytes a word; return the ``domains`` section."""
    folder.mkdir(parents=True, exist_ok=True)
    section = {}
    for domain in domains:
        section[domain] = {}
        for side in ("unlearn", "retain"):
            section[domain][side] = {}
            for part, count in (("train", rows), ("val", val)):
                if not count:
                    continue
                draw = random.Random(f"{domain}.{side}.{part}")
                lines = [
                    {
                        "prompt": "".join(draw.choices("abcdefgh", k=draw.randint(6, 12))) + "?",
                        "completion": "".join(draw.choices("nopqrst", k=draw.randint(4, 9))),
                    }
                    for _ in range(count)
                ]
                file = folder / f"{domain}_{side}_{part}.jsonl"
                file.write_text("".join(json.dumps(line) + "\n" for line in lines))
                section[domain][side][part] = str(file)
    return section


def _tiny_config(tmp_path, tiny_model_folder):
    """Return the function ``tiny_config`` for a folder."""

    def make(domains=("privacy", "copyright"), rows=4, val=2, name="run", **sections):
        data = _tiny_data(tmp_path / "data", domains, rows, val)
        general = tmp_path / "data" / "general.jsonl"
        general.write_text('{"prompt": "sun?", "completion": "star"}\n')
        config = {
            "model": {"name": str(tiny_model_folder), "dtype": "float32", "lora": {"r": 2}},
            "domains": data,
            "general": {"train": str(general)},
            **SMALL,
            "output": str(tmp_path / name),
        }
        if "preset" in sections:  # a key that is given would win over the preset's
            config["unlearning"] = {
                k: v for k, v in SMALL["unlearning"].items() if k != "objective"
            }
        for key, value in sections.items():
            old = config.get(key)
            both = isinstance(old, dict) and isinstance(value, dict)
            config[key] = {**old, **value} if both else value
        from grail.files import dump_yaml

        file = tmp_path / f"{name}.yaml"
        file.write_text(dump_yaml(config))
        return file

    return make


@pytest.fixture
def tiny_config(tmp_path, tiny_model_folder):
    """Write data and a YAML file for a run of the tiny model: ``tiny_config(..., **sections)``.

    Keyword arguments replace keys inside sections (dictionaries) or values; returns the file. The
    run goes to ``output``, which is ``tmp_path / "run"`` unless given.
    """
    return _tiny_config(tmp_path, tiny_model_folder)


@pytest.fixture(scope="module")
def module_config(tmp_path_factory, tiny_model_folder):
    """``tiny_config`` for a run that the tests of a module share."""
    return _tiny_config(tmp_path_factory.mktemp("module"), tiny_model_folder)


@pytest.fixture(scope="session")
def session_config(tmp_path_factory, tiny_model_folder):
    """``tiny_config`` for runs that many modules share."""
    return _tiny_config(tmp_path_factory.mktemp("session"), tiny_model_folder)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, tiny_model_folder):
    """The folder of a run of ``tiny_config()``, made once: tests must not change it."""
    from grail.cli.main import main

    folder, output = tmp_path_factory.mktemp("finished"), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main(["run", str(_tiny_config(folder, tiny_model_folder)())])
    assert code == 0, output.getvalue()
    return folder / "run"


@pytest.fixture(scope="session")
def copied_run():
    """Copy a run to another place: ``copied_run(run, old, new)`` returns its folder below ``new``.

    ``old`` is the folder above the run and its data; where a file names it, it names ``new``.
    """
    from grail.run import manifest

    def copy(run, old, new):
        made = shutil.copytree(run, new / run.relative_to(old))
        for file in made.rglob("*"):  # settings and reports hold the paths of data and output
            if file.is_file() and bytes(old) in (content := file.read_bytes()):
                file.write_bytes(content.replace(bytes(old), bytes(new)))
        manifest.drop(made)  # all of it
        manifest.record(made)
        return made

    return copy


@pytest.fixture
def finished(finished_run, copied_run, tiny_config, tmp_path):
    """Copy ``finished_run`` to ``tmp_path / "run"`` and return a configuration: ``finished()``.

    Takes the arguments of ``tiny_config``, for the configuration alone: the run has none of them.
    """

    def make(**sections):
        copied_run(finished_run, finished_run.parent, tmp_path)
        return tiny_config(**sections)

    return make
