"""What accelerate cannot do is refused in the words of the settings."""

import pytest

from grail.errors import InputError
from grail.training.accelerator import make_accelerator


def test_an_unknown_tracker_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"unlearning\.trackers"):
        make_accelerator(["no_such_tracker"], tmp_path)
