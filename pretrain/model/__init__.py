"""model: the video-text models of the field in one small zoo, on open_clip's towers.

    towers -> temporal (mean, seq, lstm, tdb + tab, stan) -> heads (dot, mug, tight): model.VideoTextModel, top to bottom
    rerank                                         words ask of frames: a logit for each of few pairs
    blocks, features, patches3d, draws, losses     what these are made of
    initialize                                     a fresh model starts from CLIP, as published
    peers                                          published checkpoints load strictly, and give the published numbers
    adapter                                        any model of open_clip as towers, where they are not OpenAI's
    files, folders, adapted, pickles               checkpoints of any kind as tensors: files, trainers' shards, LoRA
    clip_files, other_files, keys                  towers of these tensors, and what became of every key
    checkpoint, pretrained                         a model of ours on the disk; towers by name, tag or file
    flops                                          what a clip costs
What each computes is compared with the published code's numbers (tests/parity.py). Where that code has a bug, the right
behavior is the default; `faithful` brings the bug back.
"""

from stillreel.configs.model import ModelSettings, PeerOptions
from stillreel.pretrain.model.checkpoint import load_model, save_model
from stillreel.pretrain.model.initialize import build_model
from stillreel.pretrain.model.model import VideoTextModel
from stillreel.pretrain.model.peers import load_peer, read_peer

__all__ = [
    "ModelSettings",
    "PeerOptions",
    "VideoTextModel",
    "build_model",
    "load_model",
    "load_peer",
    "read_peer",
    "save_model",
]
