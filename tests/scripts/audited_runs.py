"""Finished runs of a tiny model that has learnt its rows, and their oracles; made once."""

import contextlib
import io
import shutil

import pytest

LEARNS = {
    "domains": ("privacy",),
    "model": {"lora": None},
    "teach": {"epochs": 30, "learning_rate": 0.02, "batch_size": 8, "until": 1.0},
    "importance": {"trials": 1},
    "unlearning": {"learning_rate": 0.003, "epochs": 6},
    "evaluation": {"generate": False},
    "audit": {"relearn": {"steps": [1, 3], "batch_size": 2}},
}
"""The tiny model knows every row in a second; ascent takes part of it back."""


@pytest.fixture(scope="session")
def runs(session_config):
    """Name -> folder of a run: ``run`` unlearned, ``same`` took steps of no effect, ``oracle``.

    The three share their vanilla model. Tests must not change the folders.
    """
    from grail.cli.main import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        file = session_config(name="run", **LEARNS)
        assert main(["run", str(file)]) == 0
        folders = {name: file.with_name(name) for name in ("run", "same", "oracle")}
        shutil.copytree(folders["run"], folders["oracle"])
        exact = session_config(name="oracle", preset="exact", **LEARNS)
        assert main(["run", str(exact)]) == 0
        shutil.copytree(folders["run"], folders["same"])
        no_effect = LEARNS | {"unlearning": {"learning_rate": 1e-30, "epochs": 1}}
        same = session_config(name="same", **no_effect)
        assert main(["run", str(same)]) == 0
    return folders


@pytest.fixture(scope="session")
def second_oracle(session_config):
    """The folder of an oracle of another seed. Tests must not change it."""
    from grail.cli.main import main

    file = session_config(name="second", preset="exact", seed=1, **LEARNS)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["run", str(file)]) == 0
    return file.with_name("second")


@pytest.fixture
def copied(runs, tmp_path):
    """Return a copy of a run that the test may write to: ``copied(name)``."""
    return lambda name: shutil.copytree(runs[name], tmp_path / name)


@pytest.fixture(scope="session")
def audit_context():
    """Make a context without a model: ``audit_context({(domain, side, part): count}, ...)``.

    Rows of general text have the side ``general``.
    """
    import torch

    from grail.audit.context import AuditContext
    from grail.config.run import parse_config
    from grail.data.encode import Encoded
    from grail.data.samples import Sample
    from grail.progress import NullListener
    from grail.run.context import RunContext
    from grail.run.inputs import Inputs

    def make(counts, seed=0, **settings):
        part = {"train": "x.jsonl"}
        config = parse_config(
            {
                "domains": {"a": {"unlearn": part, "retain": part}},
                "seed": seed,
                "audit": settings,
                "output": "out",
            }
        )
        inputs = Inputs((), (), (), {})
        context = RunContext(config, inputs, NullListener(), torch.device("cpu"))
        rows = [
            Encoded(Sample(d, side, part, i, "", ""), (1, 2), 1)
            for (d, side, part), count in counts.items()
            for i in range(count)
        ]
        context.rows = tuple(row for row in rows if row.side != "general")
        context.general = tuple(row for row in rows if row.side == "general")
        return AuditContext(context, config.audit, {})

    return make
