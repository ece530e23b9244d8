"""One causal language model: loading, forward pass, answers, generation, saving."""
