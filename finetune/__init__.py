"""finetune: benchmarks, video decoding, evaluation, coarse-to-fine search and checkpoint exchange.

In: a checkpoint and a benchmark's own files. Out: numbers with their protocol. May use every other room; must import
without ray and img2dataset, which GPU machines lack. So far: `import-checkpoint`, `export`, a run's report, and the demo.
"""
