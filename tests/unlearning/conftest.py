"""A model that writes, for the tests of what models write themselves."""

import pytest
import torch

from grail.data.batches import collate
from grail.data.encode import Encoder
from grail.data.samples import GENERAL, Sample
from grail.model.answers import answers_of

TEXTS = {
    "unlearn": [("home?", "a green house"), ("phone?", "call 555 now")],
    "retain": [("job?", "a fine baker"), ("town?", "born in town"), ("prize?", "the medal")],
}


@pytest.fixture(scope="module")
def writer(tiny_model, tiny_tokenizer):
    """Return a function: sides that a tiny model learns, steps -> model, tokenizer, all rows."""

    def made(sides, steps):
        tokenizer = tiny_tokenizer()
        model = tiny_model(lora=False, tied=False, vocabulary=len(tokenizer))
        encoder = Encoder(tokenizer, "plain", 64)
        samples = [
            Sample("d", side, "train", number, *texts)
            for side, pairs in TEXTS.items()
            for number, texts in enumerate(pairs)
        ]
        samples.append(Sample(*GENERAL, 0, "sun?", "a star"))
        rows = [encoder.encode(sample)[0] for sample in samples]
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        batch = collate([row for row in rows if row.side in sides], tokenizer.pad_token_id)
        for _ in range(steps):
            answers_of(model, batch).nll.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.eval(), tokenizer, rows

    return made
