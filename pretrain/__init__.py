"""pretrain: the video-text model, its objectives, the torch data loader and the training loop.

In: clip shards, through the stream. Out: checkpoints. May use configs, shards and animate; must import without ray and
img2dataset, which GPU machines lack.
    data       the torch data loader: clips by position, the same for every number of ranks and workers
    model      the published video-text models in one zoo, their losses, and their checkpoints read and written
    doctor     what a machine can do, and what a model costs on it (hardware, timing)
Objectives and the training loop are to come.
"""
