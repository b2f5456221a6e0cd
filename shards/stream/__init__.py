"""stream: which sample comes when in training, and its bytes.

order, mixture        pure functions of (shard sizes, seed, epoch, lanes, window), of one data set and of several
corpus -> reader      the shards of a data set, and their samples by number, hashed before they are believed (cache, faults)
stream                from a position to a whole sample (faults: or to its stand-in); simulate: what that would cost
"""
