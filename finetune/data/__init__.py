"""data: videos and their captions as training and evaluation read them.

clips, loader      clips of a benchmark's videos, and pairs by position, the same for any ranks and workers
prepare, store     frames decoded once, and read again
encode             from files to features; asked, plan: what a command reads, and what that would cost
"""
