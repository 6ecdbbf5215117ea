"""Signal an eventfd or a Unix socket that a guest has, too, without ever waiting (`ext/cdna/eventfd.h`)."""

cdef extern from "eventfd.h" nogil:
    ctypedef struct signal_context_t:
        pass
    void signal_context_open(signal_context_t *signals)
    void signal_context_close(signal_context_t *signals)
    void signal_eventfd_by(signal_context_t *signals, int fd)
    void signal_eventfd(int fd)
