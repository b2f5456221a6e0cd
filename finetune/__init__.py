"""finetune: from a checkpoint to numbers with their protocol: benchmarks, evaluation, search, reports, exchange.

In: a checkpoint and a benchmark's own files, or videos. Out: results.json, tables, indexes, pages. May use every other room;
must import without ray and img2dataset, which GPU machines lack.
    benchmarks     annotation files become typed benchmarks; moving: one that is drawn by code
    data           clips of videos, pairs by position, frames that were decoded once and are read again
    evaluation     a split of a benchmark, for pretrain's evaluator, and results.json
    search         an index of videos, and its page
    report         a run's folder becomes one page
    hub            models and data sets on the Hugging Face hub: names, refusals, cards
"""
