"""General ability: multiple-choice tasks before and after unlearning."""
