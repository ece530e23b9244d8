"""A sample's text as it is compared with that of others: without case and spacing."""

from __future__ import annotations

from dataclasses import dataclass

from grail.data.samples import Sample


@dataclass(frozen=True)
class Text:
    """A sample without case and spacing: what is asked (with earlier turns) and the answer."""

    key: str
    part: str
    prompt: str
    completion: str

    @property
    def row(self) -> tuple[str, str]:
        """Return what makes two samples the same row."""
        return self.prompt, self.completion


def normalised(sample: Sample) -> Text:
    """Return what is compared of a sample; its system turn is not."""
    turns = [text for role, text in sample.context if role != "system"]
    prompt = " ".join([*turns, sample.prompt])
    return Text(sample.key, sample.part, _plain(prompt), _plain(sample.completion))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
