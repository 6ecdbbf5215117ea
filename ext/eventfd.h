/* Adding to an eventfd whose other holder may have made writes to it wait.
 *
 * O_NONBLOCK belongs to the open file, which the frontend shares: it can clear the flag and fill the counter, and
 * a write waits then until somebody reads. The completion of an asynchronous read adds to an eventfd as the kernel
 * itself does, and never waits (io_submit(2), IOCB_FLAG_RESFD). Without asynchronous I/O it is a write.
 *
 * One context for each module that includes this; its calls come one at a time.
 */

#ifndef CDNA_EVENTFD_H
#define CDNA_EVENTFD_H

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

struct cdna_aio_ring {          /* where an aio context points to; the kernel's struct aio_ring */
    unsigned id, nr, head, tail, magic;
};

static struct {
    aio_context_t context;
    pid_t pid;                  /* whose it is: a child has none of its parent's */
    int null;
    int failed;
} cdna_aio;

static int cdna_aio_setup(void)
{
    cdna_aio.context = 0;
    cdna_aio.pid = getpid();
    cdna_aio.null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cdna_aio.failed = cdna_aio.null < 0 || syscall(SYS_io_setup, 64, &cdna_aio.context) < 0;
    return !cdna_aio.failed;
}

/* Adds 1, at once whatever the counter holds. */
static inline void signal_eventfd(int fd)
{
    const uint64_t one = 1;
    struct iocb read = {0}, *list = &read;
    struct cdna_aio_ring *ring;

    if (cdna_aio.failed || (cdna_aio.pid == 0 && !cdna_aio_setup())) {
        if (write(fd, &one, 8) < 0)
            return;
        return;
    }
    read.aio_lio_opcode = IOCB_CMD_PREAD;
    read.aio_fildes = cdna_aio.null;
    read.aio_flags = IOCB_FLAG_RESFD;
    read.aio_resfd = fd;
    ring = (struct cdna_aio_ring *)cdna_aio.context;
    syscall(SYS_io_submit, cdna_aio.context, 1, &list);
    __atomic_store_n(&ring->head, __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
}

#endif
