"""What a run would do and need, before it starts: counted, measured briefly, then estimated."""
