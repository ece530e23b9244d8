"""Remove knowledge from language models on request, and prove it: the GRAIL method."""

__version__ = "0.1.0"
