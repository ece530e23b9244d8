"""Stage 2: from importance scores to the entries that must not move."""
