"""Checks of a model in memory and of its rows: what ``inputs`` checks for the files of a run."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from grail.artifacts import Mask
from grail.config.run import Data, Unlearning
from grail.data.encode import Encoded, Encoder, encode_all
from grail.data.samples import Sample
from grail.errors import InputError
from grail.evaluation.evaluate import rows_to_continue
from grail.model.forward import Policy, is_adapter, positions_of, trainable
from grail.model.generate import most_new
from grail.model.probe import refuse_looking_ahead
from grail.model.weights import Weights, copy_weights, fresh_adapter, holding, put_weights
from grail.training.eight_bits import check_eight_bits
from grail.unlearning.guesses import Written, written_guesses
from grail.unlearning.objectives import EXACT, make_objective
from grail.unlearning.reset import reset_weights
from grail.unlearning.rewrites import rewrites


def encode_rows(
    model: Policy,
    tokenizer: Any,
    rows: Sequence[Sample],
    data: Data,
    max_new_tokens: int | None = None,
) -> list[Encoded]:
    """Encode rows, with the checks that a run makes; what is cut is a Python warning."""
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end token (eos_token).")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if len({row.key for row in rows}) < len(rows):
        raise InputError("rows: two have the same key. Read each side of a domain in one go.")
    encoded, cuts = encode_all(Encoder(tokenizer, data.template, data.max_tokens, data.date), rows)
    for text in cuts:
        warnings.warn(text, stacklevel=3)
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    size, positions = embeddings.weight.shape[0], positions_of(model.config)
    check_room(encoded, tokenizer, size, positions, max_new_tokens)
    refuse_looking_ahead(model)
    return encoded


def check_room(
    rows: Sequence[Encoded],
    tokenizer: Any,
    embedded: int,
    positions: int | None,
    max_new_tokens: int | None = None,
) -> None:
    """Refuse tokens that a model has no embedding for, and texts that it has no positions for.

    ``embedded`` tokens have an embedding, and there are ``positions`` for so many (None: any
    number). A generation has up to ``max_new_tokens``; None: nothing is generated.
    """
    end = f"{tokenizer.eos_token} (id {tokenizer.eos_token_id})"
    if tokenizer.pad_token_id >= embedded:
        raise InputError(
            f"model.name: the padding token {tokenizer.pad_token} has the id "
            f"{tokenizer.pad_token_id}, and the model has embeddings for {embedded} tokens. Set "
            f"pad_token in its tokenizer_config.json to a token that it knows, such as {end}."
        )
    if (last := max((max(row.ids) for row in rows), default=0)) >= embedded:
        raise InputError(
            f"model.name: the rows hold the token {tokenizer.convert_ids_to_tokens(last)} (id "
            f"{last}), and the model has embeddings for {embedded} tokens. The tokenizer is not "
            "that of the model, or tokens were added to it alone."
        )
    if positions is None:
        return
    longest = max((len(row.ids) for row in rows), default=0)
    if longest > positions:
        raise InputError(
            f"data.max_tokens: the longest row has {longest} tokens, and the model has positions "
            f"for {positions}. Set data.max_tokens to {positions} or less."
        )
    if max_new_tokens is None:
        return
    continued = rows_to_continue(rows)
    beyond = [r.start for r in continued if r.start + most_new(r, max_new_tokens) > positions]
    if beyond:
        raise InputError(
            f"evaluation.max_new_tokens: a prompt of {max(beyond)} tokens and a generation of up "
            f"to {max_new_tokens} need more than the {positions} positions of the model. Set "
            f"evaluation.max_new_tokens to {positions - max(beyond)} or less."
        )


def check_trainable(model: Policy) -> None:
    """Refuse a model in which nothing requires gradients."""
    if not trainable(model):
        raise InputError(
            "the model has no trainable parameters. Load an adapter with is_trainable=True, or set "
            "requires_grad."
        )


def check_rows(section: Unlearning, rows: Sequence[Encoded]) -> None:
    """Refuse to unlearn without the rows that the objective reads, or without the optimizer."""
    check_eight_bits(section.optimizer)
    if section.objective == EXACT:
        raise InputError("unlearn: exact trains a new model instead. Use grail.api.run.")
    if not section.unlearn_weight:
        raise InputError("unlearn: unlearn_weight 0 unlearns nothing. Give a weight above 0.")
    if section.reset is not None and section.reset.keep != "frozen":
        raise InputError(
            f"unlearn: reset.keep: {section.reset.keep} reads the scores of a run. In memory "
            'use keep: "frozen": what survives is what the mask freezes.'
        )
    train = {(row.domain, row.side) for row in rows if row.part == "train"}
    domains = sorted(domain for domain, side in train if side == "unlearn")
    sides = make_objective(section).sides
    lacking = [d for d in domains if "retain" in sides and (d, "retain") not in train]
    if "general" in sides and not any(side == "general" for _, side in train):
        lacking.append("general")
    unknown = {name for phase in section.phases or [] for name in phase} - set(domains)
    if not domains or lacking or unknown:
        names = ", ".join([*lacking, *sorted(unknown)]) or "the unlearn side"
        raise InputError(f"unlearn: there are no train rows for {names}.")


def before_in_memory(model: Policy, section: Unlearning, seed: int) -> Weights | None:
    """Return the weights from before the facts, if the settings need them and they are known.

    An adapter is taken to hold the facts: before them, there was a fresh one. InputError if the
    settings need a model that is not known.
    """
    teacher = section.teacher if section.objective == "distill" else None
    if not section.reset and not section.guesses and teacher not in ("auto", "before"):
        return None
    if is_adapter(model):
        return fresh_adapter(model, seed)
    if teacher in ("auto", "before"):
        raise InputError(
            f"unlearn: teacher: {teacher} is the model from before the facts, which is not known "
            "when all weights are trained. Use suppressed or refusal."
        )
    return None


def rewritten_in_memory(
    model: Policy,
    tokenizer: Any,
    rows: Sequence[Encoded],
    section: Unlearning,
    before: Weights | None,
    seed: int,
) -> Written:
    """Return what models write, as the settings ask: see ``run.reset.write_rewrites``."""
    train = [row for row in rows if row.part == "train"]
    rows = rewrites(model, tokenizer, train, section.rewrites) if section.rewrites else []
    guesses = Written()
    if section.guesses and before is not None:
        how = section.guesses, section.examples, seed
        with holding(model, before):
            guesses = written_guesses(model, tokenizer, train, how)
    rows = [*rows, *guesses.rows]
    numbered = [replace(r, sample=replace(r.sample, row=n)) for n, r in enumerate(rows)]
    return Written(numbered, guesses.examples)


def reset_in_memory(
    model: Policy, section: Unlearning, mask: Mask | None, before: Weights | None, seed: int
) -> None:
    """Put all entries but the frozen ones back to where they were before the facts."""
    if section.reset is None:
        return
    weights = copy_weights(model)
    frozen = mask.frozen if mask is not None else {}
    kept = {n: frozen.get(n, torch.zeros(w.shape, dtype=torch.bool)) for n, w in weights.items()}
    put_weights(model, reset_weights(weights, before, kept, section.reset.amount, seed))
