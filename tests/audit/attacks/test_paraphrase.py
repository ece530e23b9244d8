"""Every paraphrase is asked once; mean and worst case of one row, by hand."""

from dataclasses import replace

from grail.audit.attacks.paraphrase import mean_of, paraphrase, worst_of
from grail.audit.context import AuditContext
from grail.evaluation.values import SampleValue
from grail.progress import silent


def scores(nll):
    """Extraction strength, Min-K%, Min-K%++ and zlib ratio of an answer known as well as that."""
    return 1 / nll, nll + 1, nll - 2, nll / 10


def values(side):
    pairs = [(0.25, 3.0, 40.0), (0.75, 1.0, 20.0), (0.5, 2.0, 30.0)]
    return [
        SampleValue("m", "k", "d", side, "train", 7, accuracy, nll, 5, *scores(nll), rouge)
        for accuracy, nll, rouge in pairs
    ]


def test_the_mean_of_every_number():
    found = mean_of(values("unlearn"))
    assert (found.accuracy, found.nll, found.rouge_l) == (0.5, 2.0, 30.0)
    assert (found.key, found.row, found.tokens, found.prompt) == ("k", 7, 5, None)


def test_the_worst_is_the_most_known_of_what_must_go_and_the_least_of_what_must_stay():
    found = worst_of(values("unlearn"))
    assert (found.accuracy, found.nll, found.rouge_l) == (0.75, 1.0, 40.0)
    assert (found.extraction, found.min_k, found.min_k_plus_plus, found.zlib) == scores(1.0)
    found = worst_of(values("retain"))
    assert (found.accuracy, found.nll, found.rouge_l) == (0.25, 3.0, 20.0)
    assert (found.extraction, found.min_k, found.min_k_plus_plus, found.zlib) == scores(3.0)


def test_one_way_of_asking_is_both():
    (one, *_) = values("unlearn")
    assert mean_of([one]) == worst_of([one]) == one


def test_what_was_not_measured_of_all_is_not_combined():
    first, *others = values("unlearn")
    found = mean_of([replace(first, rouge_l=None), *others])
    assert found.rouge_l is None
    assert first.rouge_l == 40.0


def test_every_paraphrase_is_asked_once(audit_context, tiny_tokenizer, monkeypatch):
    context = audit_context({("a", "unlearn", "train"): 2, ("a", "retain", "train"): 1})
    context.run.tokenizer = tokenizer = tiny_tokenizer()
    others = [("one?", "two?"), (), ("three?",)]
    context.rows = tuple(
        replace(row, sample=replace(row.sample, prompt="old?", completion="yes", paraphrases=asked))
        for row, asked in zip(context.rows, others, strict=True)
    )
    asked = {}

    def measure(_, amount, rows, tick):
        tick(len(rows), len(rows), "")
        values = []
        for row in rows:
            text = tokenizer.decode(row.ids[1:-1])
            assert text == f"{row.sample.prompt}\n\nyes"
            asked.setdefault(row.key, []).append(row.sample.prompt)
            n = len(asked[row.key])
            values.append(SampleValue(amount, row.key, *row.place, 0, n / 4, 1.0, 5, *scores(1.0)))
        return values

    monkeypatch.setattr(AuditContext, "measure", measure)
    first, _, third = (row.key for row in context.rows)
    values = paraphrase(context, silent)
    assert asked == {first: ["one?", "two?"], third: ["three?"]}
    assert [(v.model, v.key, v.accuracy) for v in values] == [
        ("mean", first, 0.375),
        ("mean", third, 0.25),
        ("worst", first, 0.5),
        ("worst", third, 0.25),
    ]
