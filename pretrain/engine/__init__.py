"""engine: a run of training, whatever it is trained on.

session -> loop              begun or gone on with, to the final model; steps: wait, step, tell, evaluate, save, stop
prefetcher                   from the loader to the device
accumulation, optimizer, ema the backward pass, whole or in chunks; AdamW and its rates; averages of weights
distributed, parallel        the ranks of a run; a task compiled, in DDP or FSDP2
state, extend                all that a checkpoint holds, from any layout into any; another model than its checkpoint was
"""
