"""Attacks that read what a model writes: many sampled answers, and answers begun for it.

Greedy answers alone hide what a model still says at times (leak@k, arXiv 2511.04934) or goes on
with once it is told how the answer begins. Both are scored by ROUGE-L with the true answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grail.audit.bench import Bench
from grail.data.batches import shuffled
from grail.data.encode import Encoded
from grail.evaluation import metrics
from grail.evaluation.evaluate import SampleValue
from grail.evaluation.fluency import leak_at_k
from grail.model.generate import Sampling
from grail.progress import Tick, silent

GREEDY = "greedy"
WRITES = ("sample", "extract")
"""Names of these attacks; only ROUGE-L is measured under them."""

TOGETHER = 96
"""Sequences that are written at once."""

SAID = "answers written"


def sample(bench: Bench, tick: Tick) -> list[SampleValue]:
    """Write ``audit.samples`` answers to each row at temperature 1.

    Amounts: ``greedy`` for one greedy answer, ``k`` for the best of k samples, in expectation.
    """
    rows, count = _rows(bench), bench.settings.samples
    total = len(rows) * (count + 1)
    values, generator = bench.read(GREEDY, rows, silent), bench.generator(TOGETHER)
    greedy = generator.texts(rows, lambda done: tick(done, total, SAID))
    found = _scored(bench, values, rows, greedy)
    copies = [row for row in rows for _ in range(count)]
    sampling = Sampling(1.0, bench.seed)
    texts = generator.texts(copies, lambda done: tick(len(rows) + done, total, SAID), sampling)
    scores = [_score(bench, row, text) for row, text in zip(copies, texts, strict=True)]
    own = [scores[first : first + count] for first in range(0, len(scores), count)]
    for k in sorted({1, count}):
        best = zip(values, (leak_at_k(every, k) for every in own), strict=True)
        found += [replace(value, model=str(k), rouge_l=score) for value, score in best]
    return found


def extract(bench: Bench, tick: Tick) -> list[SampleValue]:
    """Tell the model a share of the true answer and let it go on greedily.

    Amounts: the shares of ``audit.told``. Scored is the rest, against the rest of the true answer.
    """
    found: list[SampleValue] = []
    rows, shares = _rows(bench), bench.settings.told
    for number, share in enumerate(shares):
        begun = [told for row in rows if (told := begin(row, share)) is not None]
        before = number * len(rows)

        def say(done: int, before: int = before) -> None:
            tick(before + done, len(shares) * len(rows), SAID)

        texts = bench.generator(TOGETHER).texts(begun, say)
        values = bench.read(f"{share:g}", begun, silent) if begun else []
        found += _scored(bench, values, begun, texts)
    return found


def begin(row: Encoded, share: float) -> Encoded | None:
    """Move the beginning of the answer into the prompt; None where nothing would be left to say.

    The end token is no part of the answer here.
    """
    words = len(row.answer) - 1
    told = round(share * words)
    return replace(row, start=row.start + told) if told < words else None


def _rows(bench: Bench) -> list[Encoded]:
    """Return the unlearn train rows that are asked: at most ``audit.written_rows`` a domain."""
    most, targets = bench.settings.written_rows, bench.targets()
    if most is None:
        return list(targets)
    chosen: set[str] = set()
    for domain in dict.fromkeys(row.domain for row in targets):
        own = [row for row in targets if row.domain == domain]
        chosen |= {row.key for row in shuffled(own, bench.seed, "written", domain)[:most]}
    return [row for row in targets if row.key in chosen]


def _score(bench: Bench, row: Encoded, text: str) -> float:
    """Return ROUGE-L F1 (percent) with the true answer, or with the rest that was not told."""
    said = bench.context.tokenizer.decode(row.answer, skip_special_tokens=True)
    return metrics.rouge_l(said, text)


def _scored(
    bench: Bench, values: Sequence[SampleValue], rows: Sequence[Encoded], texts: Sequence[str]
) -> list[SampleValue]:
    """Return what one pass says about the rows, with the scores of what was written."""
    every = zip(values, rows, texts, strict=True)
    return [replace(value, rouge_l=_score(bench, row, text)) for value, row, text in every]
