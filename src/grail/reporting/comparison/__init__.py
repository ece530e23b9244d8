"""A comparison as tables, figures and LaTeX."""
