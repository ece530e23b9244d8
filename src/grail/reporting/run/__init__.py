"""A run as a report and a verdict."""
