"""pretrain: the video-text model, its objectives, the torch data loader and the training loop.

In: clip shards, through the stream. Out: checkpoints. May use configs, shards and animate; must import without ray and
img2dataset, which GPU machines lack.
    model    the published video-text models in one zoo, their losses, and their checkpoints read and written
"""
