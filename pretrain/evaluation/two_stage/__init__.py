"""Coarse to fine: vectors propose K videos for a caption, and what sees words and frames orders these.

stages.py   features -> vectors that propose, and scores that order: of the re-ranker, of `mug`, of `tight`
order.py    coarse scores, candidates and their fine scores -> one order; pure
sweep.py    figures against K, what they cost, and the weight of the fusion, chosen on a validation split
staged.py   an evaluator's sets in two stages: weight, then figures
plot.py     the same as a picture
"""
