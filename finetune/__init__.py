"""finetune: from a checkpoint to numbers with their protocol: benchmarks, evaluation, search, reports, exchange.

In: a checkpoint and a benchmark's own files, or videos. Out: results.json, tables, indexes, pages. May use every other room;
must import without ray and img2dataset, which GPU machines lack.
    benchmarks     annotation files become typed benchmarks; moving: one that is drawn by code
    containers     which containers are read, and how their files end
    video          video files become frames, by the published samplers
    data           clips of them, pairs by position, frames that were decoded once and are read again
    evaluation     a split of a benchmark, for pretrain's evaluator, and results.json
    checkpoints    which model is meant, whoever wrote it
    search         an index of videos, and its page
    report         a run's folder becomes one page
"""
