"""Comparisons of the tiny model, and child processes replaced by calls in this process."""

import contextlib
import io

import pytest
import yaml

SHORT = {"teach": {"epochs": 1}, "unlearning": {"epochs": 1}, "evaluation": {"generate": False}}
"""Short runs: a comparison makes many of them."""


@pytest.fixture
def comparison(tiny_config, tmp_path):
    """Write the YAML of a comparison: ``comparison(methods, base={...}, **settings)``."""

    def make(methods, base=None, **settings):
        short = {name: SHORT[name] | (base or {}).get(name, {}) for name in SHORT}
        raw = yaml.safe_load(tiny_config(rows=3, val=1, **((base or {}) | short)).read_text())
        del raw["output"]
        output = str(tmp_path / "out")
        content = {"base": raw, "methods": methods, "output": output, **settings}
        file = tmp_path / "comparison.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    return make


@pytest.fixture
def plan(comparison):
    """Make the plan of a comparison; takes the arguments of ``comparison``."""
    from grail.comparison.rows import plan_comparison
    from grail.comparison.settings import load_comparison

    return lambda methods, **more: plan_comparison(
        *load_comparison(comparison(methods, **more), [])
    )


@pytest.fixture
def played(monkeypatch):
    """Replace child processes by calls; returns the list of the commands that were started."""
    from grail.cli.main import main
    from grail.comparison import processes

    started = []

    def run_all(jobs, parallel):
        for job in jobs:
            started.append(job.words)
            job.log.parent.mkdir(parents=True, exist_ok=True)
            output = io.StringIO()
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                code = main(job.words)
            job.log.unlink(missing_ok=True)  # it may be a hard link
            job.log.write_text(output.getvalue())
            yield job, processes.ProcessResult(code, 1.0, 1 << 30)

    monkeypatch.setattr(processes, "run_all", run_all)
    return started
