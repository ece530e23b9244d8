"""Stage 3: the objectives, and the training that follows them under a mask."""
