"""Shapes in the signatures of grail are checked while the tests run, by jaxtyping's import hook."""

import ast
from pathlib import Path

import jaxtyping
import pytest
import torch

import grail
from grail.model.nll import token_nll

SOURCE = Path(grail.__file__).parent


def test_a_wrong_shape_is_refused():
    token_nll(torch.zeros(2, 5), torch.zeros(2, dtype=torch.long))
    for wrong in (torch.zeros(3, dtype=torch.long), torch.zeros(2)):  # another length, no integers
        with pytest.raises(jaxtyping.TypeCheckError, match="targets"):
            token_nll(torch.zeros(2, 5), wrong)


def test_every_module_with_shapes_is_checked(request):
    *checked, _ = request.config.getoption("jaxtyping_packages").split(",")
    with_shapes = {
        ".".join(("grail", *file.relative_to(SOURCE).with_suffix("").parts))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "jaxtyping"
    }
    assert with_shapes
    assert sorted(checked) == sorted(with_shapes)
