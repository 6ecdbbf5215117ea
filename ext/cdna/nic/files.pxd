"""Memory files for parts of the NIC's memory."""

from libc.stdint cimport uint8_t

# Replaces the memory at an address by a memory file with the same contents; returns its descriptor.
cdef move_to_file(uint8_t *at, size_t size, bint writable)
