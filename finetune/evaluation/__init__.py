"""evaluation: a model on a split of a benchmark (evaluator), in two stages (two_stage), and what is told of it (results)."""
