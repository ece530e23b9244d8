"""One run directory, filled stage by stage."""
