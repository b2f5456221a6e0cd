"""report: one self-contained page about a run of training, made from what lies in its folder.

run.json, metrics.jsonl -> history        settings, curves, figures
the model, held-out clips -> answers      the captions that it ranks first for a few clips, and what chance would give
results.json -> tested                    the tables of benchmarks, of this run or of others that began from it
history, answers, tested -> page (chart)  the page, section by section
"""
