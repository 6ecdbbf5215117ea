"""AddressSanitizer's eyes for memory that we hand out ourselves (`ext/cdna/sanitizer.h`)."""

cdef extern from "sanitizer.h" nogil:
    bint is_sanitized()
    void forbid(const void *at, size_t size)    # until it is allowed again; whole words of 8 bytes
    void allow(const void *at, size_t size)
