"""Turns results into tables and pages; nothing here needs torch."""
