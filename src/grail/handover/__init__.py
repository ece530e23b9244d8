"""What is handed over after a run: the model, the evidence, and the way back."""
