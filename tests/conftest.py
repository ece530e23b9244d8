"""Fixtures: tiny models, their runs, and processes of their own.

What imports torch and transformers is imported when it is first asked for (``scripts``): the
process that hands out the tests to others never is.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.util
import io
import json
import os
import random
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test needs the net

import hypothesis
import jaxtyping
import pytest

hypothesis.settings.register_profile("grail", deadline=None)  # the first example may import much
hypothesis.settings.load_profile("grail")

SCRIPTS = Path(__file__).parent / "scripts"
pytest_plugins = ("audited_runs", "comparisons")


def _script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_SHAPES = _script("shapes")
jaxtyping.jaxtyped = _SHAPES.jaxtyped  # what the import hook decorates grail with


@functools.cache
def _tiny():
    return _script("tiny")


OTHERS = ("beartype", "pydantic", "rich.console", "peft", "accelerate")
OTHERS += ("transformers.models.llama.modeling_llama",)


def pytest_sessionstart(session):
    """Import what others wrote before what grail wrote does.

    While a module that jaxtyping watches is being imported, whatever it imports is compiled anew
    under another name: two thousand files on a new machine.
    """
    hands_out = session.config.getoption("dist", "no") != "no"
    if not hands_out or hasattr(session.config, "workerinput"):
        for name in OTHERS:
            importlib.import_module(name)


def pytest_collection_finish():
    """Leave what was imported out of later garbage collections: a million objects, all in use."""
    gc.set_threshold(50_000, 20, 20)
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Put tests of processes first: one worker then has them all, and one server of forks does."""
    items.sort(key=lambda item: "forks" not in getattr(item, "fixturenames", ()))


@pytest.fixture(autouse=True, scope="session")
def _no_fsync():
    """Wait for no disk: no test takes the power away, and a process that dies loses no write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def _shapes():
    """Check shapes in the first calls that this test makes of each function."""
    _SHAPES.called.clear()


@pytest.fixture(scope="session")
def tiny_model():
    """Make a model: ``tiny_model(family, lora=True, tied=None, seed=0, **settings)``, float32."""
    return _tiny().tiny_model


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Make a byte-level tokenizer: ``tiny_tokenizer(bos=True, chat=False, pad=True)``."""
    return _tiny().tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_rows():
    """Make encoded samples: ``tiny_rows(count, seed=0, vocabulary=96, prompt=.., answer=..)``."""
    return _tiny().tiny_rows


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory):
    """A folder for ``model.name``: Llama, float32, full weights, byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny = _tiny()
    tokenizer = tiny.tiny_tokenizer()
    tiny.tiny_model(lora=False, tied=False, vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SMALL = {
    "data": {"template": "plain", "max_tokens": 64},
    "vanilla": {"epochs": 3, "batch_size": 4, "learning_rate": 0.02, "checkpoint_steps": 2},
    "importance": {"trials": 2, "batch_tokens": 128},
    "unlearning": {
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
    """Return the function that ``tiny_config`` is, for a folder."""

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
        for key, value in sections.items():
            old = config.get(key)
            config[key] = {**old, **value} if isinstance(old, dict) else value
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
    """The same for a run that the tests of a module have in common; the folder is its own."""
    return _tiny_config(tmp_path_factory.mktemp("module"), tiny_model_folder)


@pytest.fixture(scope="session")
def session_config(tmp_path_factory, tiny_model_folder):
    """The same for runs that many modules have in common."""
    return _tiny_config(tmp_path_factory.mktemp("session"), tiny_model_folder)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, tiny_model_folder):
    """The folder of a run of ``tiny_config()``, made once. Not to be changed."""
    from grail.cli.main import main

    folder, said = tmp_path_factory.mktemp("finished"), io.StringIO()
    quiet = contextlib.redirect_stdout(said), contextlib.redirect_stderr(said)
    with quiet[0], quiet[1], pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_DIR", str(folder / "no-git"))
        code = main(["run", str(_tiny_config(folder, tiny_model_folder)())])
    assert code == 0, said.getvalue()
    return folder / "run"


@pytest.fixture
def finished(finished_run, tiny_config, tmp_path):
    """Make a configuration and a finished run of it: ``finished()``, as if it had run here.

    Takes what ``tiny_config`` takes; the run that is there was made with none of that.
    """

    def make(**sections):
        own = tmp_path / "run"
        shutil.copytree(finished_run, own)
        for file in own.rglob("*"):  # settings and reports show where data and output lie
            if file.is_file() and bytes(finished_run.parent) in (content := file.read_bytes()):
                file.write_bytes(content.replace(bytes(finished_run.parent), bytes(tmp_path)))
        return tiny_config(**sections)

    return make


@pytest.fixture(scope="session")
def script():
    """Import tests/scripts/NAME.py: ``script(name)``."""
    return _script


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """Processes of their own, see ``scripts/forks.py``."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    made = _script("forks").Forks(tmp_path_factory.mktemp("no-git"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def two_processes(forks):
    """Run tests/scripts/NAME.py in two processes: ``two_processes(name, folder)`` -> its module."""

    def run(name, folder):
        script, log = SCRIPTS / f"{name}.py", folder / "torchrun.log"
        # Not `accelerate launch --cpu`: without MPI it starts one, whatever --num_processes is.
        code = forks.run("torchrun", script, folder, log=log, ACCELERATE_USE_CPU="true")
        assert code == 0, log.read_text()
        return _script(name)

    return run
