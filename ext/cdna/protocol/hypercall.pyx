"""The numbers of hypercalls, for Python; the layouts are in hypercall.pxd."""
# build: control

BATCH = HYPERCALL_BATCH


class Malformed(Exception):
    """A message that no driver would send: it ends the connection."""
