"""checkpoints: which model is meant, whoever wrote it (weights)."""
