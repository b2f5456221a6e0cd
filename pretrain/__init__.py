"""pretrain: the video-text model, its objectives, the torch data loader and the training loop.

In: clip shards, through the stream. Out: checkpoints. May use configs, shards and animate; must import without ray and
img2dataset, which GPU machines lack.
    data           the torch data loader: clips by position, the same for every number of ranks and workers
    video          video files become frames, by the published samplers; knows no torch
    model          the published video-text models in one zoo, their losses, and their checkpoints read and written
    objectives     what is asked of the model, over the batch of all ranks
    engine         a run from its first step to its last, whatever it is trained on
    run            the folder of a run: checkpoints, metrics.jsonl, signals
    evaluation     the one evaluator, its figures, held-out clips, two stages
"""
