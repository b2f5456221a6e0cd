"""pretrain: the video-text model, its objectives, the torch data loader and the training loop.

In: clip shards, through the stream. Out: checkpoints. May use configs, shards and animate; must import without ray and
img2dataset, which GPU machines lack.
    data           the torch data loader: clips by position, the same for every number of ranks and workers
    model          the published video-text models in one zoo, their losses, and their checkpoints read and written
    objectives     what is asked of the model, over the batch of all ranks; accumulation: the backward pass, whole or in chunks
    optimizer      AdamW, its groups of weights, their rates; parallel: a task compiled, in DDP or FSDP2; average: of weights
    state          all that a checkpoint holds of a task and its optimizer, from any layout and into any
    loop           steps, in order: what is waited for, told, evaluated, saved; feed: from the loader to the device; ranks
    run            the folder of a run: checkpoints, metrics.jsonl, signals; evaluation: figures, and held-out clips
    command        `stillreel pretrain`; session, extend: what finetuning shares with it; doctor: what a model costs here
"""
