"""Rows of text, and what they become: samples, token ids, labels, batches."""
