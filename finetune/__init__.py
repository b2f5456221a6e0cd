"""finetune: from a checkpoint to numbers with their protocol: benchmarks, evaluation, search, reports, exchange.

In: a checkpoint and a benchmark's own files, or videos. Out: results.json, tables, indexes, pages. May use every other room;
must import without ray and img2dataset, which GPU machines lack.
    benchmarks     annotation files become typed benchmarks; moving: one that is drawn by code
    video          video files become frames, by the published samplers; clips, prepare, store: decoded once, read again
    loader         pairs by position; encode: from files to features; examine: a model on a split; results: what is told
    command        `stillreel finetune`; evaluate, import_checkpoint, export, demo: theirs
    two_stage      coarse to fine, and what it gains
    search         an index of videos, and its page
    report         a run's folder becomes one page
"""
