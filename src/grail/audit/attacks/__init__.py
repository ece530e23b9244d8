"""Ways to bring back what a model has unlearned; each leaves the model exactly as it was."""
