"""render: a picture through its windows, uint8 to uint8.

cpu -> straight, filters       the reference, in integer arithmetic; looks: one change of color for a whole clip
device -> plan, kernels        the same bytes on a GPU, by a plan that the CPU made for a batch
"""
