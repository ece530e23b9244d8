"""The audit as a verdict and tables."""
