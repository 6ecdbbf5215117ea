/* Signalling a descriptor of a frontend: an eventfd, or a Unix stream socket in its place (User-Mode Linux).
 *
 * O_NONBLOCK belongs to the open file, which a frontend shares: it can clear the flag and fill the counter, and a
 * write waits then until somebody reads. The completion of asynchronous input adds to an eventfd as the kernel
 * itself does, and never waits (io_submit(2), IOCB_FLAG_RESFD). Where there is none, it is a write.
 *
 * A socket is none to io_submit(2). It is sent the eight bytes that an eventfd would be written; MSG_DONTWAIT and
 * MSG_NOSIGNAL hold for this call, whatever the frontend does to the open file and to its own end.
 *
 * Each module that calls this has a context of its own; calls of one module come one at a time.
 */

#ifndef CDNA_EVENTFD_H
#define CDNA_EVENTFD_H

#include <errno.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct cdna_aio_ring {              /* what an aio_context_t points to: the beginning of the kernel's */
    unsigned id, nr, head, tail;
};

static struct {
    aio_context_t context;          /* 0: none */
    int asked;                      /* 1: for a context, which there may not be */
} cdna_aio;

/* A child has none of its parent's contexts. */
static inline void cdna_aio_forget(void)
{
    cdna_aio.context = 0;
    cdna_aio.asked = 0;
}

static inline void cdna_aio_setup(void)
{
    static int once;

    cdna_aio.asked = 1;
    if (syscall(SYS_io_setup, 64, &cdna_aio.context) < 0)
        cdna_aio.context = 0;
    if (!once)
        pthread_atfork(NULL, NULL, cdna_aio_forget);
    once = 1;
}

/* Adds 1 to an eventfd, or sends 1 to a socket; returns at once whatever is there already. */
static inline void signal_eventfd(int fd)
{
    static const uint64_t one = 1;
    struct iocb nothing = {0}, *list = &nothing;
    struct cdna_aio_ring *ring;

    if (!cdna_aio.asked)
        cdna_aio_setup();
    nothing.aio_lio_opcode = IOCB_CMD_PREAD;    /* of no bytes, which is done at once, though in vain */
    nothing.aio_fildes = fd;
    nothing.aio_flags = IOCB_FLAG_RESFD;
    nothing.aio_resfd = fd;
    if (!cdna_aio.context || syscall(SYS_io_submit, cdna_aio.context, 1, &list) != 1) {
        if (send(fd, &one, 8, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == ENOTSOCK && write(fd, &one, 8) < 0)
            return;                 /* it is full: its reader is told already */
        return;
    }
    ring = (struct cdna_aio_ring *)cdna_aio.context;    /* whose entries say nothing more */
    __atomic_store_n(&ring->head, __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
}

#endif
