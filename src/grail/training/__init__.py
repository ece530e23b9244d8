"""The training loop with exact freezing, and what it trains."""
