"""evaluation: a split of a benchmark for the evaluator of pretrain/evaluation (benchmark), and what is told of it (results)."""
