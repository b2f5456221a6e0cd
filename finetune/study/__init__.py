"""study: what does animating buy? A grid of runs that differ only in what they were pretrained on.

world, draw, write         videos drawn by code, each told apart from hard alternatives by one thing alone
"""
