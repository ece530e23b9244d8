"""Measures models on rows; nothing here knows how a model was made."""
