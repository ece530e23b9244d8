"""The model in numbers, and how fast this machine is with it: one matrix product, a few passes.

Measures; estimates nothing. Nothing is trained: no weight changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grail.config.run import Config
from grail.data.batches import collate
from grail.data.encode import Encoded
from grail.forecast.cost import Shape, Speed
from grail.model.answers import answers_of
from grail.model.forward import Policy, device_of, evaluating, trainable
from grail.model.generate import generate
from grail.model.packing import packs

SIDE = 1024
"""Rows and columns of the matrices whose product is timed."""
LEAST = 0.2
"""Seconds that it is repeated for."""
SAMPLE_TOKENS = 256
"""Rows are taken until they have so many tokens: a few seconds on two cores at 135 M parameters."""
NEW_TOKENS = 6


def shape_of(model: Policy) -> Shape:
    """Read a model's numbers off its parameters (which may be on the device ``meta``)."""
    own: Any = model
    head = own.get_output_embeddings().weight
    parameters = list(model.parameters())
    outside = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} | {id(head)}
    blocks = [p for p in parameters if p.dim() == 2 and id(p) not in outside]
    trained = list(trainable(model).values())
    text = own.config.get_text_config()
    width = text.num_hidden_layers * text.hidden_size
    return Shape(
        parameters=sum(p.numel() for p in parameters),
        bytes=sum(p.numel() * p.element_size() for p in parameters),
        tensors=tuple(tuple(p.shape) for p in trained),
        trainable_bytes=sum(p.numel() * p.element_size() for p in trained),
        products=sum(p.numel() for p in blocks),
        products_trained=sum(p.numel() for p in blocks if p.requires_grad),
        head=head.numel(),
        vocabulary=head.shape[0],
        cache=2 * width * head.element_size(),  # fewer key heads need less
    )


def rate_of(device: torch.device, dtype: torch.dtype) -> float:
    """Return operations a second in products of two square matrices."""
    a = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    _timed(lambda: a @ a, device)  # the first product also sets the libraries up
    count, spent = 0, 0.0
    while spent < LEAST:
        spent += _timed(lambda: a @ a, device)
        count += 1
    return count * 2.0 * SIDE**3 / spent


def speed_of(model: Policy, rows: Sequence[Encoded], tokenizer: Any, config: Config) -> Speed:
    """Time passes over some of the rows, as the stages make them."""
    device, pad = device_of(model), tokenizer.pad_token_id
    some = sample(rows, SAMPLE_TOKENS)
    batch = collate(some, pad, device)

    def forward() -> Tensor:
        return answers_of(model, batch).nll.mean()

    def both() -> None:
        forward().backward()

    tokens = batch.ids.numel() if not packs(model) else sum(len(row.ids) - 1 for row in some)
    began, worked = time.perf_counter(), time.process_time()
    with evaluating(model):
        with torch.no_grad():
            forward()  # the first pass sets the libraries up
            once = min(_timed(forward, device) for _ in range(3))
        saved = _saved_bytes(model, both)
        train = _timed(both, device)
        model.zero_grad(set_to_none=True)
    decoding = None
    if config.evaluation.generate:
        decoding = _decoding(model, some, tokenizer, once / tokens)
    rate = rate_of(device, next(model.parameters()).dtype)
    had = (time.process_time() - worked) / (time.perf_counter() - began)
    share = min(1.0, had) if device.type == "cpu" else 1.0
    once = min(once, train)  # on a busy machine one of them may have had to wait
    return Speed(rate, once / tokens, train / tokens, decoding, saved / tokens, share)


def sample(rows: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """Return rows of middling length, with about ``tokens`` tokens together; at least one."""
    order = sorted(rows, key=lambda row: (len(row.ids), row.key))
    middle = order[len(order) // 2]
    count = max(1, tokens // len(middle.ids))
    first = max(0, len(order) // 2 - count // 2)
    return order[first : first + count]


def _decoding(model: Policy, rows: Sequence[Encoded], tokenizer: Any, forward: float) -> float:
    """Return seconds a decoding step, the pass over the prompts taken off."""
    prompts = [row.ids[: row.start] for row in rows]
    made: list[list[int]] = []
    most = [NEW_TOKENS] * len(prompts)
    spent = _timed(lambda: made.extend(generate(model, prompts, most, tokenizer)), device_of(model))
    steps = min(NEW_TOKENS, max(map(len, made)) + 1)  # they may all have ended before
    read = forward * len(prompts) * max(map(len, prompts))
    return max(spent - read, 0.1 * spent) / steps


def _saved_bytes(model: Policy, run: Callable[[], object]) -> int:
    """Return what autograd keeps for the backward pass besides the weights, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values())


def _timed(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that ``run`` takes, on an accelerator to its end."""

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize()

    wait()
    began = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - began
