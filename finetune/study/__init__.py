"""study: what does animating buy? A grid of runs that differ only in what they were pretrained on.

world, draw, write      videos drawn by code, in groups that one thing alone tells apart; on the disk in the forms the tool reads
grid                    the cells, and the ordinary runs that each of them is
cell, ask, score, run   one cell made; what became of every query; all of them, killed at will
statistics, figures     intervals over seeds and queries, the questions and their answers; checks: what must hold
tables, report, cost    what is told of it, and what it takes
"""
