"""finetune: benchmarks, video decoding, evaluation, coarse-to-fine search and checkpoint exchange.

In: a checkpoint and a benchmark's own files. Out: numbers with their protocol. May use every other room; must import
without ray and img2dataset, which GPU machines lack. So far: `import-checkpoint` and `export`, and
    benchmarks    annotation files become typed benchmarks, and their videos are found on the disk
    video         video files become frames, by the published samplers
    report        a run's folder becomes one page
    demo          the whole tool on pictures drawn by code
"""
