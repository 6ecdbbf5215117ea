"""Kinds of descriptors that the sleeping loop (loop.pxd) finds ready; lower numbers are its driver's."""

cdef enum:
    WAKE = 1 << 30              # the loop's own
    WIRE = (1 << 30) + 1
    KICK = (1 << 30) + 2        # a virtio guest's: the loop wakes, and looks at every ring
