"""report: one self-contained page about a run of training, or several side by side, made from what lies in their folders.

run.json, metrics.jsonl -> history             settings, curves, figures
the model, clips (gallery) -> answers          the captions that it ranks first for a few clips, and the clips for their captions
results.json                                   the tables of benchmarks, of these runs or of others, paired by query
told                                           all of it
told -> curves (chart), figures, tested, examples -> page      the page, section by section
"""
