"""Attacks that read generated text: many sampled answers, and answers with a moved beginning.

Greedy answers alone hide what a model says now and then (leak@k, arXiv 2511.04934), or how it
goes on after the first words of the answer. ROUGE-L with the true answer measures both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grail.audit.context import AuditContext, piece
from grail.data.encode import Encoded
from grail.evaluation.evaluate import recall
from grail.evaluation.fluency import leak_at_k
from grail.evaluation.values import SampleValue
from grail.model.generate import Sampling
from grail.progress import Tick, silent

GENERATING = ("sample", "extract")
"""Names of these attacks; only ROUGE-L is measured under them."""

_BATCH_SIZE = 96
_NOTE = "answers generated"


def sample_answers(context: AuditContext, tick: Tick) -> list[SampleValue]:
    """Generate ``audit.samples`` answers to each row at temperature 1.

    Amounts: ``greedy`` for one greedy answer, ``k`` for the best of k samples, in expectation.
    """
    rows, count = _rows(context), context.settings.samples
    total = len(rows) * (count + 1)
    values, generator = context.measure("greedy", rows, silent), context.generator(_BATCH_SIZE)
    greedy = generator.texts(rows, lambda done: tick(done, total, _NOTE))
    copies = [row for row in rows for _ in range(count)]
    texts = generator.texts(
        copies, lambda done: tick(len(rows) + done, total, _NOTE), Sampling(1.0, context.seed)
    )
    scores = [_score(context, row, text) for row, text in zip(copies, texts, strict=True)]
    by_row = [scores[first : first + count] for first in range(0, len(scores), count)]
    scored = _scored(context, values, rows, greedy)
    for k in sorted({1, count}):
        best = [leak_at_k(row_scores, k) for row_scores in by_row]
        scored += [
            replace(value, model=str(k), rouge_l=score)
            for value, score in zip(values, best, strict=True)
        ]
    return scored


def extract_answers(context: AuditContext, tick: Tick) -> list[SampleValue]:
    """Put a share of the true answer into the prompt and continue greedily.

    Amounts: the shares of ``audit.told``. The rest is scored against the rest of the true answer.
    """
    scored: list[SampleValue] = []
    shares = context.settings.told
    for number, share in enumerate(shares):
        rows = [begun for row in _rows(context) if (begun := begin(row, share)) is not None]
        if not rows:
            continue
        step = piece(tick, number, len(shares))
        texts = context.generator(_BATCH_SIZE).texts(
            rows, lambda done, step=step, rows=rows: step(done, len(rows), _NOTE)
        )
        values = context.measure(f"{share:g}", rows, silent)
        scored += _scored(context, values, rows, texts)
    return scored


def begin(row: Encoded, share: float) -> Encoded | None:
    """Move a share (0-1) of the answer's tokens into the prompt; None if no token would be left.

    The end token does not count.
    """
    tokens = len(row.answer) - 1
    moved = round(share * tokens)
    return replace(row, start=row.start + moved) if moved < tokens else None


def _rows(context: AuditContext) -> list[Encoded]:
    """Return at most ``audit.written_rows`` of the measured unlearn train rows of each domain."""
    targets, most = context.targets(), context.settings.written_rows
    drawn: set[str] = set()
    for domain in dict.fromkeys(row.domain for row in targets):
        rows = [row for row in targets if row.domain == domain]
        drawn |= {row.key for row in context.draw(rows, most, "written", domain)}
    return [row for row in targets if row.key in drawn]


def _score(context: AuditContext, row: Encoded, text: str) -> float:
    """Return ROUGE-L F1 (percent) with the true answer, from where the prompt ends."""
    limit = context.run.config.evaluation.max_new_tokens
    return recall(context.run.tokenizer, row, text, limit)


def _scored(
    context: AuditContext,
    values: Sequence[SampleValue],
    rows: Sequence[Encoded],
    texts: Sequence[str],
) -> list[SampleValue]:
    """Return the values with the scores of the generated texts."""
    triples = zip(values, rows, texts, strict=True)
    return [replace(value, rouge_l=_score(context, row, text)) for value, row, text in triples]
