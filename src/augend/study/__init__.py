"""Many trials: compare, workers, statistics, advice, results; and training a model of one's own by a recipe."""
