"""Stage 1: from labelled samples to the importance of every trainable entry."""
