"""model: the video-text models of the field in one small zoo, on open_clip's towers.

    towers -> temporal (mean, seq, lstm, tdb + tab, stan) -> heads (dot, mug, tight): model.VideoTextModel, top to bottom
    blocks, features, patches3d, losses            what these are made of
    initialise                                     a fresh model starts from CLIP, as published
    peers                                          published checkpoints load strictly, and give the published numbers
What each computes is compared with the published code's numbers (tests/parity.py). Where that code has a bug, the right
behaviour is the default; `faithful` brings the bug back.
"""

from configs.model import ModelSettings, PeerOptions
from pretrain.model.initialise import build_model
from pretrain.model.model import VideoTextModel
from pretrain.model.peers import load_peer, read_peer

__all__ = ["ModelSettings", "PeerOptions", "VideoTextModel", "build_model", "load_peer", "read_peer"]
