"""format: a data set's files on the disk, one module a file.

plan, record, receipt, manifest      what was planned, what became of it, what was written, and all of it in one
writer -> tar, index                 a shard's samples as bytes; sample: read single ones back; check: held against its plan
foreign                              tars that we did not write; containers: how the files of videos end
"""
