/* Signalling a descriptor of a frontend: an eventfd, or a Unix stream socket in its place (User-Mode Linux).
 *
 * O_NONBLOCK belongs to the open file, which a frontend shares: it can clear the flag and fill the counter, and a
 * write waits then until somebody reads. The completion of asynchronous input adds to an eventfd as the kernel
 * itself does, and never waits (io_submit(2), IOCB_FLAG_RESFD). Where there is none, it is a write
 * to a descriptor that has room.
 *
 * A socket is none to io_submit(2). It is sent the eight bytes that an eventfd would be written; MSG_DONTWAIT and
 * MSG_NOSIGNAL hold for this call, whatever the frontend does to the open file and to its own end.
 *
 * Calls with one context come one at a time.
 */

#ifndef CDNA_EVENTFD_H
#define CDNA_EVENTFD_H

#include <errno.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct cdna_aio_ring {              /* what an aio_context_t points to: the beginning of the kernel's */
    unsigned id, nr, head, tail;
};

typedef struct {
    aio_context_t context;          /* 0: none */
    int asked;                      /* 1: for a context, which there may not be */
} signal_context_t;

static inline void signal_context_open(signal_context_t *signals)
{
    signals->asked = 1;
    signals->context = 0;           /* as io_setup(2) wants it */
    if (syscall(SYS_io_setup, 64, &signals->context) < 0)
        signals->context = 0;
}

static inline void signal_context_close(signal_context_t *signals)
{
    if (signals->context)
        syscall(SYS_io_destroy, signals->context);
    signals->context = 0;
    signals->asked = 0;
}

/* Adds 1 to an eventfd, or sends 1 to a socket; returns at once whatever is there already. */
static inline void signal_eventfd_by(signal_context_t *signals, int fd)
{
    static const uint64_t one = 1;
    struct iocb nothing = {0}, *list = &nothing;
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    struct cdna_aio_ring *ring;

    nothing.aio_lio_opcode = IOCB_CMD_PREAD;    /* of no bytes, which is done at once, though in vain */
    nothing.aio_fildes = fd;
    nothing.aio_flags = IOCB_FLAG_RESFD;
    nothing.aio_resfd = fd;
    if (!signals->context || syscall(SYS_io_submit, signals->context, 1, &list) != 1) {
        if (send(fd, &one, 8, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == ENOTSOCK && poll(&room, 1, 0) == 1 &&
            write(fd, &one, 8) < 0)
            return;
        return;                     /* or it is full: its reader is told already */
    }
    ring = (struct cdna_aio_ring *)signals->context;    /* whose entries say nothing more */
    __atomic_store_n(&ring->head, __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
}

/* The one of the engine and of control, of each module that calls `signal_eventfd`. */
static signal_context_t cdna_signals;

/* A child has none of its parent's contexts. */
static inline void cdna_signals_forget(void)
{
    cdna_signals.context = 0;
    cdna_signals.asked = 0;
}

static inline void signal_eventfd(int fd)
{
    static int once;

    if (!cdna_signals.asked) {
        signal_context_open(&cdna_signals);
        if (!once)
            pthread_atfork(NULL, NULL, cdna_signals_forget);
        once = 1;
    }
    signal_eventfd_by(&cdna_signals, fd);
}

#endif
