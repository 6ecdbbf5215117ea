"""What a descriptor is that the sleeping loop (loop.pxd) finds ready. Its driver's own are below those."""

cdef enum:
    WAKE = 1 << 30              # the loop's own
    WIRE = (1 << 30) + 1
    KICK = (1 << 30) + 2        # of a virtio guest: the loop wakes, and looks at every ring
