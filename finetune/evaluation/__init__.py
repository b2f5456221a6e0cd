"""evaluation: a split of a benchmark for the evaluator of pretrain/evaluation (benchmark), what is told of it (results), and two
results of the same queries beside each other (paired)."""
