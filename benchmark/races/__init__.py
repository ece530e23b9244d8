"""Races: several ways to do the same work, side by side (``python benchmark/speed.py``)."""
