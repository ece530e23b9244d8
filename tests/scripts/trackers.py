"""A tracker in the place of W&B's, which nobody needs to install."""

import pytest


@pytest.fixture
def tracked(monkeypatch):
    """Put a tracker in the place of W&B's; returns what it was told."""
    import accelerate
    from accelerate import tracking
    from accelerate.state import AcceleratorState

    from grail.training import accelerator

    told = []

    class Tracker(tracking.GeneralTracker):
        name, requires_logging_directory = "wandb", False

        def __init__(self, project, **settings):
            super().__init__()
            told.append(("start", project, settings))
            if settings["dir"].endswith("closed"):
                raise RuntimeError("nobody is logged in.")

        tracker = None

        def store_init_configuration(self, values):
            told.append(("settings", values))

        def log(self, values, step=None, **more):
            told.append((step, values))

        def finish(self):
            told.append(("end",))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Tracker)
    for module in (accelerator, tracking):
        monkeypatch.setattr(module, "get_available_trackers", lambda: [tracking.LoggerType.WANDB])
    assert accelerate.accelerator.LOGGER_TYPE_TO_CLASS is tracking.LOGGER_TYPE_TO_CLASS
    AcceleratorState._reset_state(reset_partial_state=True)
    yield told
    AcceleratorState._reset_state(reset_partial_state=True)
