"""Several methods and seeds on one vanilla model, each cell a run in a process of its own."""
