/* Adding to an eventfd whose other holder may have made writes to it wait.
 *
 * O_NONBLOCK belongs to the open file, which a frontend shares: it can clear the flag and fill the counter, and a
 * write waits then until somebody reads. The completion of asynchronous input adds to an eventfd as the kernel
 * itself does, and never waits (io_submit(2), IOCB_FLAG_RESFD). Where there is none, it is a write.
 *
 * Each module that calls this has a context of its own; calls of one module come one at a time.
 */

#ifndef CDNA_EVENTFD_H
#define CDNA_EVENTFD_H

#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdint.h>
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

/* Adds 1, and returns at once whatever the counter holds. */
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
        if (write(fd, &one, 8) < 0)
            return;                 /* it is full: who reads it is told already */
        return;
    }
    ring = (struct cdna_aio_ring *)cdna_aio.context;    /* whose entries say nothing more */
    __atomic_store_n(&ring->head, __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
}

#endif
