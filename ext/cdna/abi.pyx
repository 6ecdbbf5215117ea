"""The shared definitions, as Python sees them: enumerations, numpy dtypes and the context page's offsets."""
# build: control

import re

import numpy as np


def struct_dtype(layout):
    """The dtype of a packed struct in a typed memoryview, from the buffer format that Cython exports for it.

    Read here and not by numpy, which does not take `^` before an array's shape.
    """
    layout = memoryview(layout)
    fields = re.findall(r"\^?(?:\((\d+)\))?([BHIQL]):(\w+):", layout.format)
    dtype = np.dtype([(name, code, (int(shape),) if shape else ()) for shape, code, name in fields])
    assert dtype.itemsize == layout.itemsize
    return dtype


def _layouts():
    cdef desc_t desc[1]
    cdef completion_t completion[1]
    cdef offload_t offload[1]
    cdef vnet_header_t vnet[1]
    cdef context_page_t page[1]
    cdef desc_t[:] desc_view = desc
    cdef completion_t[:] completion_view = completion
    cdef offload_t[:] offload_view = offload
    cdef vnet_header_t[:] vnet_view = vnet
    cdef context_page_t[:] page_view = page
    return tuple(map(struct_dtype, (desc_view, completion_view, offload_view, vnet_view, page_view)))


DESC_DTYPE, COMPLETION_DTYPE, OFFLOAD_DTYPE, VNET_HEADER_DTYPE, CONTEXT_PAGE_DTYPE = _layouts()

PAGE_BYTES = PAGE_SIZE
MAILBOX_COUNT = MAILBOXES
