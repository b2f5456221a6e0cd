"""system: plumbing that knows no subject, at the bottom of the house: every room may use it, and it uses none of them.

storage        the one module that knows whether bytes lie on a disk or in a bucket; lock: one writer a folder
interrupt      Ctrl-C and SIGTERM; pool: processes that share a command's work; progress: a bar, or lines in a log
dice           counter-based randomness; memory: kept buffers; hardware: cores, memory, accelerators' peaks
"""
