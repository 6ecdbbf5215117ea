"""Signal an eventfd or a Unix socket that a guest has, too, without ever waiting (`ext/cdna/eventfd.h`)."""

cdef extern from "eventfd.h" nogil:
    void signal_eventfd(int fd)
