"""selection: a new data set of finished ones' samples, whose bytes are copied, never decoded (`select`, `reshard`).

clips       the data sets that are read, proven to be whole, and what a plan says of them
choice      which of their rows are taken: where, unique, sample; the same whatever their order
near        pairs of hashes that differ in few bits, and the survivors among them
plans       a plan for each way of filming that they were built with
copying     `make_shard`: the chosen samples of finished shards, under new keys
"""
