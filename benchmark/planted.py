"""A bed where the truth is known: facts written into chosen entries, and who finds them.

Usage: python benchmark/planted.py [--seeds 0 1 2] [--ranking package.module:function ...]

A tiny model learns facts that it must keep. Then facts to remove are written into ``SHARE`` of the
entries of each Linear weight, drawn at random; all others are held fixed bit for bit while it
learns them. So each entry is known to hold some of them or not. A ranking orders the entries of
each block by how surely they hold the facts; its precision is the share of planted entries among as
many of its first as were planted there (their recall is the same number), recall_4 that of the
planted entries which are among four times as many. Then only its first may move in an unlearning by
ascent and descent, and half of the removed facts are learned again with all weights.

A ranking of your own: a function from ``Bed`` to a tensor per name, greater is surer.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from intervals import line
from machine import write
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import grail
from grail.artifacts import Mask, Scores, block_of
from grail.config.functions import imported
from grail.data.samples import Sample
from grail.localization.damage_budget import damage_per_benefit
from grail.localization.evidence import Evidence
from grail.training.masked import MaskedOptimizer

SHARE = 0.05
FACTS = {"retain": 24, "unlearn": 16}
TOKENS = 3
"""Tokens of an answer, of one of ``VALUES`` words each."""
VALUES = 40
WEIGHTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TITLE = "Who finds planted facts"
COLUMNS = {
    "Precision": "precision",
    "Recall in 4 n": "recall_4",
    "Left": "left",
    "Kept": "kept",
    "Back": "back",
}
NOTE = "Percent."

Marks = Mapping[str, Tensor]


@dataclass(frozen=True)
class Bed:
    """A model that knows all facts, and where those to remove were written.

    Attributes:
        model: The model, all of whose parameters are trained.
        tokenizer: One token a word.
        rows: A row for each fact, sides "unlearn" and "retain".
        planted: Weight -> True where facts were written; no other entry moved.
        seed: Seed of everything that is drawn.
    """

    model: Any
    tokenizer: Any
    rows: tuple[Sample, ...]
    planted: Marks
    seed: int

    @cached_property
    def scores(self) -> dict[tuple[str, str], Scores]:
        """The scores of both sides, with random labels."""
        return grail.score(self.model, self.tokenizer, self.rows, seed=self.seed)

    @cached_property
    def expected(self) -> dict[tuple[str, str], Scores]:
        """The scores of both sides, with the expectation over the labels."""
        return grail.score(
            self.model, self.tokenizer, self.rows, labels="expected", substitution="targets"
        )

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that facts may be in."""
        named = self.model.named_parameters()
        return {name: p.detach() for name, p in named if name in self.planted}


def _unlearn(scores: Mapping[tuple[str, str], Scores], statistic: str = "mean_abs") -> Marks:
    return getattr(scores["facts", "unlearn"], statistic)


def _not_shared(bed: Bed) -> Marks:
    """Rank by GRAIL's score; what is also in the retain side's first tenth comes last."""
    ours, theirs = (bed.scores["facts", side].mean_abs for side in ("unlearn", "retain"))
    shared = first(theirs, {name: bits.numel() for name, bits in bed.planted.items()}, 0.1)
    return {name: ours[name].where(~shared[name], ours[name] - 1e9) for name in bed.planted}


def _damage_budget(bed: Bed) -> Marks:
    evidence = Evidence(bed.scores, lambda: bed.weights)
    parts = zip(evidence.shapes.items(), damage_per_benefit(evidence), strict=True)
    return {name: -part[1].reshape(shape) for (name, shape), part in parts}


def _random(bed: Bed) -> Marks:
    generator = torch.Generator().manual_seed(1000 + bed.seed)
    return {n: torch.rand(bits.shape, generator=generator) for n, bits in bed.planted.items()}


RANKINGS: dict[str, Callable[[Bed], Marks]] = {
    "the truth": lambda bed: {name: bits.float() for name, bits in bed.planted.items()},
    "grail": lambda bed: _unlearn(bed.scores),
    "grail, shared last": _not_shared,
    "signed means": lambda bed: {n: v.abs() for n, v in _unlearn(bed.scores, "mean").items()},
    "expected labels": lambda bed: _unlearn(bed.expected),
    "damage budget": _damage_budget,
    "magnitude": lambda bed: {name: value.abs() for name, value in bed.weights.items()},
    "random": _random,
}
"""Name -> how it ranks entries: greater values first."""


def make_bed(seed: int, steps: int = 300) -> Bed:
    """Return a bed: at most ``steps`` steps to learn what is kept, and as many to plant."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    special = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    config = LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads, **special)
    model = LlamaForCausalLM(config)
    rows = _facts(seed)
    kept = [row for row in rows if row.side == "retain"]
    learn(model, tokenizer, kept, torch.optim.AdamW(model.parameters(), 3e-3), steps)
    generator = torch.Generator().manual_seed(seed)
    planted = {}
    for name, parameter in model.named_parameters():
        if name.split(".")[-2] in WEIGHTS:
            bits = torch.zeros(parameter.numel(), dtype=torch.bool)
            bits[torch.randperm(len(bits), generator=generator)[: round(SHARE * len(bits))]] = True
            planted[name] = bits.reshape(parameter.shape)
    optimizer = _only(model, planted, 1e-2)
    learn(model, tokenizer, rows, optimizer, steps)
    optimizer.prove()
    return Bed(model, tokenizer, tuple(rows), planted, seed)


def learn(model: Any, tokenizer: Any, rows: Sequence[Sample], optimizer: Any, steps: int) -> None:
    """Train on all rows at once until all answers are right, or for ``steps`` steps."""
    for _ in range(steps):
        loss, right = _answers(model, tokenizer, rows)
        if float(right.min()) == 1 and float(loss.detach().max()) < 0.1:
            break
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()


def known(bed: Bed, model: Any, side: str, half: int | None = None) -> float:
    """Return the share of answer tokens that are right, percent; of one half of the side's rows."""
    rows = [row for row in bed.rows if row.side == side]
    with torch.no_grad():
        right = _answers(model, bed.tokenizer, rows if half is None else rows[half::2])[1]
    return 100 * float(right[:, :TOKENS].mean())


def measure(bed: Bed, ranking: Marks) -> dict[str, float]:
    """Return precision and recall_4, and what is left, kept and comes back, all in percent."""
    counts = {name: int(bits.sum()) for name, bits in bed.planted.items()}
    found = {times: first(ranking, counts, times) for times in (1, 4)}
    hits = {
        times: sum(int((bits & bed.planted[name]).sum()) for name, bits in chosen.items())
        for times, chosen in found.items()
    }
    total = sum(counts.values())
    measured = {"precision": 100 * hits[1] / total, "recall_4": 100 * hits[4] / total}
    return measured | removed(bed, found[1])


def removed(bed: Bed, free: Marks, steps: int = 60, again: int = 10) -> dict[str, float]:
    """Unlearn with the free entries alone, then learn half of it again: percent of tokens right.

    Returns:
        "left" of the facts to remove, "kept" of the others, and "back" of the half that was not
        learned again.
    """
    model = copy.deepcopy(bed.model)
    optimizer = _only(model, free, 1e-2)
    sides = [[row for row in bed.rows if row.side == side] for side in ("unlearn", "retain")]
    limit = math.log(VALUES)
    for _ in range(steps):
        away, keep = (_answers(model, bed.tokenizer, rows)[0] for rows in sides)
        optimizer.zero_grad()
        (2 * keep.mean() - away.clamp(max=2 * limit).mean()).backward()
        optimizer.step()
    after = {"left": known(bed, model, "unlearn"), "kept": known(bed, model, "retain")}
    everything = torch.optim.AdamW(model.parameters(), 3e-3)
    learn(model, bed.tokenizer, sides[0][0::2], everything, again)
    return after | {"back": known(bed, model, "unlearn", half=1)}


def first(ranking: Marks, counts: Mapping[str, int], share: float) -> dict[str, Tensor]:
    """Mark the first ``share`` times ``counts`` entries of each block."""
    blocks: dict[str, list[str]] = {}
    for name in sorted(counts):
        blocks.setdefault(block_of(name) or name, []).append(name)
    marks: dict[str, Tensor] = {}
    for names in blocks.values():
        flat = torch.cat([ranking[name].flatten().double() for name in names])
        bits = torch.zeros(len(flat), dtype=torch.bool)
        bits[flat.topk(round(share * sum(counts[name] for name in names))).indices] = True
        parts = bits.split([ranking[name].numel() for name in names])
        marks |= {n: part.reshape(ranking[n].shape) for n, part in zip(names, parts, strict=True)}
    return marks


def _only(model: nn.Module, free: Marks, rate: float) -> MaskedOptimizer:
    frozen = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
    frozen |= {name: ~bits for name, bits in free.items()}
    return MaskedOptimizer(torch.optim.AdamW(model.parameters(), rate), model, Mask(frozen))


def _answers(model: Any, tokenizer: Any, rows: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Return NLL and rightness of each answer token and the end: rows have the same length."""
    ids = torch.tensor([tokenizer.encode(f"{row.prompt} {row.completion} <eos>") for row in rows])
    logits = model(input_ids=ids).logits[:, -TOKENS - 2 : -1]
    answers = ids[:, -TOKENS - 1 :]
    loss = nn.functional.cross_entropy(logits.transpose(1, 2), answers, reduction="none")
    return loss, (logits.argmax(-1) == answers).float()


def _facts(seed: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(seed)
    rows, person = [], 0
    for side, number in FACTS.items():
        facts = []
        for _ in range(number):
            values = torch.randint(VALUES, (TOKENS,), generator=generator).tolist()
            answer = " ".join(f"v{value}" for value in values)
            facts.append({"prompt": f"what has n{person}", "completion": answer})
            person += 1
        rows += grail.samples(facts, side=side, domain="facts")
    return rows


def _tokenizer() -> PreTrainedTokenizerFast:
    people = [f"n{n}" for n in range(sum(FACTS.values()))]
    words = ["<pad>", "<eos>", "<unk>", "what", "has", *people, *(f"v{n}" for n in range(VALUES))]
    bare = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=bare, **special)


def main() -> None:
    """Make a bed for each seed, measure every ranking, and write results/planted.json."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ranking", action="append", default=[], help="package.module:function")
    options = parser.parse_args()
    rankings = RANKINGS | {name: imported(name, "--ranking") for name in options.ranking}
    found, learned = [], []
    for seed in options.seeds:
        bed = make_bed(seed)
        learned.append({side: known(bed, bed.model, side) for side in FACTS})
        for name, rank in rankings.items():
            found.append(line(name, seed, measure(bed, rank(bed))))
    settings = {"command": "python benchmark/planted.py", "share": SHARE, "facts": FACTS}
    print(f"wrote {write('planted', settings | {'known': learned}, found, {})}")


if __name__ == "__main__":
    main()
