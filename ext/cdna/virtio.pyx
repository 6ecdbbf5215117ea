"""What virtio defines, as Python sees it: enumerations and numpy dtypes."""

from cdna.abi import struct_dtype


def _layouts():
    cdef vring_desc_t desc[1]
    cdef vring_used_elem_t used[1]
    cdef vring_packed_desc_t packed[1]
    cdef vring_packed_event_t event[1]
    cdef vring_desc_t[:] desc_view = desc
    cdef vring_used_elem_t[:] used_view = used
    cdef vring_packed_desc_t[:] packed_view = packed
    cdef vring_packed_event_t[:] event_view = event
    return tuple(map(struct_dtype, (desc_view, used_view, packed_view, event_view)))


VRING_DESC_DTYPE, VRING_USED_ELEM_DTYPE, VRING_PACKED_DESC_DTYPE, VRING_PACKED_EVENT_DTYPE = _layouts()
