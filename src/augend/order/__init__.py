"""Which examples come next: orders return picks (rows of picture numbers), never batches."""
