"""How much is raced."""

from dataclasses import replace
from pathlib import Path

from races.plan import CUDA_SHAPES, QUICK, Plan, make_plan


def test_without_options_it_is_the_whole_benchmark():
    assert make_plan("cpu", None, quick=False, rows=None) == Plan()
    assert make_plan("cpu", None, quick=True, rows=None) == QUICK


def test_rows_shrink_every_count_and_leave_the_model():
    plan = make_plan("cpu", Path("there"), quick=False, rows=4)
    counts = (plan.scoring, plan.few, plan.evaluation, 2 * plan.pipeline, plan.growing)
    assert set(counts) == {4}
    assert plan.sizes == (4, 8)
    assert (plan.model, plan.data) == (Plan().model, Path("there"))


def test_what_the_processor_only_emulates_is_left_out_and_said():
    plan = make_plan("cpu", None, quick=False, rows=None, bfloat16=False)
    assert plan.precisions == ("float32",)
    assert plan.left_out
    assert replace(plan, precisions=Plan().precisions, left_out=()) == Plan()
    assert make_plan("cpu", None, quick=True, rows=None, bfloat16=False) == QUICK
    for quick in (False, True):
        theirs = make_plan("cuda", None, quick=quick, rows=None)
        assert make_plan("cuda", None, quick=quick, rows=None, bfloat16=False) == theirs


def test_cuda_has_models_of_its_own_size():
    assert make_plan("cuda", None, quick=False, rows=None).shapes == CUDA_SHAPES
    assert make_plan("cuda", None, quick=True, rows=None).shapes == QUICK.shapes
