"""What a model says: greedy and sampled answers, and answers with a moved beginning.

Greedy answers alone hide what a model says now and then (leak@k, arXiv 2511.04934), or how it
goes on after the first words of the answer. ROUGE-L with the true answer measures both.
"""

from collections.abc import Sequence
from dataclasses import replace

from grail.audit.context import AuditContext, piece
from grail.data.encode import Encoded
from grail.data.samples import GENERAL
from grail.evaluation.evaluate import recall
from grail.evaluation.fluency import leak_at_k, repetition
from grail.evaluation.values import SampleValue
from grail.model.generate import TextGenerator
from grail.progress import Tick

SPEAK = "speak"
"""The measurement of greedy answers, which is no attack."""

GENERATING = (SPEAK, "sample", "extract")
"""Where answers are generated; only ROUGE-L and, of ``SPEAK``, repetition are measured."""

_BATCH_SIZE = 96


def speak(context: AuditContext, tick: Tick) -> list[SampleValue]:
    """Answer unlearn questions greedily, and the vanilla model general ones; amount: ``greedy``."""
    more = [GENERAL.side] if context.loaded == "vanilla" else []
    rows = context.written("unlearn", *more)
    texts, scores = _answered(context, rows, tick)
    scored = _scored(context, "greedy", rows, scores)
    return [replace(v, repetition=repetition(t)) for v, t in zip(scored, texts, strict=True)]


def sample_answers(context: AuditContext, tick: Tick) -> list[SampleValue]:
    """Generate ``audit.samples`` answers to each row at temperature 1.

    Amounts: ``k`` for the best of k samples, in expectation.
    """
    rows, count = context.written("unlearn"), context.settings.samples
    copies = [row for row in rows for _ in range(count)]
    _, scores = _answered(context, copies, tick, context.seed)
    by_row = [scores[first : first + count] for first in range(0, len(scores), count)]
    best = {k: [leak_at_k(own, k) for own in by_row] for k in sorted({1, count})}
    return [v for k, found in best.items() for v in _scored(context, str(k), rows, found)]


def extract_answers(context: AuditContext, tick: Tick) -> list[SampleValue]:
    """Put a share of the true answer into the prompt and continue greedily.

    Amounts: the shares of ``audit.told``. The rest is scored against the rest of the true answer.
    """
    scored: list[SampleValue] = []
    shares = context.settings.told
    for number, share in enumerate(shares):
        told = (begin(row, share) for row in context.written("unlearn"))
        rows = [row for row in told if row is not None]
        if not rows:
            continue
        _, scores = _answered(context, rows, piece(tick, number, len(shares)))
        scored += _scored(context, f"{share:g}", rows, scores)
    return scored


def begin(row: Encoded, share: float) -> Encoded | None:
    """Move a share (0-1) of the answer's tokens into the prompt; None if no token would be left.

    The end token does not count.
    """
    tokens = len(row.answer) - 1
    moved = round(share * tokens)
    return replace(row, start=row.start + moved) if moved < tokens else None


def _answered(
    context: AuditContext, rows: Sequence[Encoded], tick: Tick, seed: int | None = None
) -> tuple[list[str], list[float]]:
    """Return an answer to each prompt, and its ROUGE-L F1 (percent) with the true one.

    The true answer begins where the prompt ends.
    """
    run, limit = context.run, context.run.config.evaluation.max_new_tokens
    generator = TextGenerator(run.model, run.tokenizer, limit, _BATCH_SIZE)
    texts = generator.texts(rows, lambda done: tick(done, len(rows), "answers generated"), seed)
    pairs = zip(rows, texts, strict=True)
    return texts, [recall(run.tokenizer, row, text, limit) for row, text in pairs]


def _scored(
    context: AuditContext, amount: str, rows: Sequence[Encoded], scores: Sequence[float]
) -> list[SampleValue]:
    """Return the rows' values with the scores of the generated texts."""
    values = context.run.evaluator(False).run(amount, rows)
    return [replace(v, rouge_l=score) for v, score in zip(values, scores, strict=True)]
