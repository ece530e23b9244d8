"""The audit of a finished run: attacks on its unlearned model, and what they bring back."""
