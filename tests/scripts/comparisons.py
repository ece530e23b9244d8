"""A comparison of the tiny model, and children that are played by calls in this process."""

import contextlib
import io

import pytest
import yaml

SHORT = {"vanilla": {"epochs": 1}, "unlearning": {"epochs": 1}, "evaluation": {"generate": False}}
"""How a run goes is tested elsewhere: here there are many of them."""


@pytest.fixture
def comparison(tiny_config, tmp_path):
    """Write the YAML of a comparison: ``comparison(methods, base={...}, **settings)``."""

    def make(methods, base=None, **settings):
        own = {name: SHORT[name] | (base or {}).get(name, {}) for name in SHORT}
        raw = yaml.safe_load(tiny_config(rows=3, val=1, **((base or {}) | own)).read_text())
        del raw["output"]
        whole = {"base": raw, "methods": methods, "output": str(tmp_path / "out"), **settings}
        file = tmp_path / "comparison.yaml"
        file.write_text(yaml.safe_dump(whole, sort_keys=False))
        return file

    return make


@pytest.fixture
def plan(comparison):
    """Make a plan; takes what ``comparison`` takes."""
    from grail.comparison.rows import plan_comparison
    from grail.comparison.settings import load_comparison

    return lambda methods, **more: plan_comparison(
        *load_comparison(comparison(methods, **more), [])
    )


@pytest.fixture
def played(monkeypatch):
    """Let this process do the work of all children; returns the words of those that started."""
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
            job.log.unlink(missing_ok=True)  # as the real one does: it may be linked
            job.log.write_text(output.getvalue())
            yield job, processes.ProcessResult(code, 1.0, 1 << 30)

    monkeypatch.setattr(processes, "run_all", run_all)
    return started
