"""General ability before and after: items -> harness (a model answers) -> outcomes (compared)."""
