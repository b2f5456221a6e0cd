"""build: how a data set comes to be, whatever a shard is made of. A command hands in its plans and a function that makes a shard.

engine        the run from the lock to the manifest: what is there, what is left, who makes it, what came of it
survey        what a folder already holds of its plans
executors     where shards are made: in this process, in a pool of processes
cluster       on Ray: which hosts are there, and what of a task whose host ends
ray_start     Ray's beginning and end under a driver, and the watch over its head
hosts         what a host has to show before it works: OUT, the source, versions
errand        what a worker of Ray's is sent
holders       processes on Ray that hold a model, and are asked by tasks
work          tasks that are no shards to be made: looked at, or parts of an index, with the same executors and attempts
isolated      after a worker died: which of its samples ends processes
late          shards that take far longer than others
libraries     the versions that bytes depend on
where         an expression over a table's columns, and which rows it is true of
"""
