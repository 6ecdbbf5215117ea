"""The inner loops of `benchmarks/`: one unit of the data path, `n` times, without a Python call in between.

The NIC's engine doesn't run meanwhile: each loop is NIC, VMM or guest itself, over a real `Nic` and its
`Tables`, and puts back what the other side would have. Every function returns what it counted, so that a
benchmark can see that the work was done.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.abi cimport FAULT_NONE, MAILBOX_TX_PRODUCER, desc_t
from cdna.cpu cimport store_u32
from cdna.doorbell cimport ring_doorbell
from cdna.memory cimport SharedRegion
from cdna.nic.bits cimport set_bit
from cdna.nic.context cimport context_t
from cdna.nic.demux cimport find_mac, header_t, parse_header
from cdna.nic.device cimport Nic
from cdna.nic.doorbell cimport doorbells
from cdna.nic.frame cimport piece_t
from cdna.nic.interrupt cimport raise_interrupt
from cdna.nic.irq_ring cimport irq_ring_t
from cdna.nic.native.dma cimport dma_address, dma_copy
from cdna.nic.state cimport nic_t
from cdna.nic.switch cimport deliver, deliver_local
from cdna.vmm.protection cimport decode_interrupts, enqueue, reap, vmm_t
from cdna.vmm.tables cimport Tables

cdef enum:
    SLACK = 64                  # readable bytes behind a frame: the parser reads words


# --- the enqueue hypercall --------------------------------------------------------------------------------

cdef void complete_all(vmm_t *vmm, uint32_t context) noexcept nogil:
    """What the NIC does when it has sent everything: the consumer is where the producer is."""
    store_u32(&vmm.nic.progress[context].tx_consumer, vmm.context[context].ring[0].producer)


def enqueue_batches(Tables tables, uint32_t domain, uint32_t context, const uint8_t[::1] requests not None,
                    int n, bint completing) -> int:
    """The hypercall with the same requests, `n` times; returns descriptors taken.

    completing: each batch completes at once, so that the next call drops its pins.
    """
    cdef vmm_t *vmm = tables.c
    cdef const desc_t *request = <const desc_t *>&requests[0]
    cdef int batch = <int>(requests.shape[0] // sizeof(desc_t)), taken = 0, status
    with nogil:
        for _ in range(n):
            status = enqueue(vmm, domain, context, 0, request, batch)
            if status < 0:
                break
            taken += status
            if completing:
                complete_all(vmm, context)
    return taken


def reap_completed(Tables tables, uint32_t context) -> int:
    """Completes all that is on the transmit ring and drops its pins; returns descriptors."""
    cdef vmm_t *vmm = tables.c
    cdef uint32_t before = vmm.context[context].ring[0].reaped
    with nogil:
        complete_all(vmm, context)
        reap(vmm, context)
    return vmm.context[context].ring[0].reaped - before


# --- doorbells --------------------------------------------------------------------------------------------

cdef inline void ring_first(nic_t *nic, uint32_t active) noexcept nogil:
    cdef uint32_t i
    for i in range(active):
        ring_doorbell(nic.context[i].page, MAILBOX_TX_PRODUCER, nic.context[i].tx.producer,
                      nic.doorbell, i)


def ring_doorbells(Nic nic, uint32_t active, int n) -> int:
    """The guest's side: the first `active` contexts write a mailbox, `n` times; returns doorbells pending."""
    cdef nic_t *c = nic.c
    cdef uint32_t i
    cdef int pending = 0
    with nogil:
        for _ in range(n):
            ring_first(c, active)
    for i in range(c.contexts):
        pending += c.context[i].page.doorbell != 0
    return pending


def scan_doorbells(Nic nic, uint32_t active, int n) -> int:
    """Rings the doorbells of the first `active` contexts and scans, `n` times; returns doorbells found."""
    cdef nic_t *c = nic.c
    cdef uint32_t i
    cdef uint64_t before = 0, after = 0
    for i in range(c.contexts):
        before += c.context[i].stats.doorbells
    with nogil:
        for _ in range(n):
            ring_first(c, active)
            doorbells(c)
    for i in range(c.contexts):
        after += c.context[i].stats.doorbells
    return after - before


# --- DMA --------------------------------------------------------------------------------------------------

def dma_copies(Nic nic, uint32_t context, uint64_t addr, uint32_t stride, uint32_t buffers, uint32_t length,
               bint write, int n) -> int:
    """Copies buffers of a context to NIC memory, or from there (write), in turns; returns copies made."""
    cdef nic_t *c = nic.c
    cdef uint8_t *packet = c.segment_buffer
    cdef uint32_t i
    cdef int done = 0
    with nogil:
        for i in range(<uint32_t>n):
            done += dma_copy(c, &c.context[context], addr + <uint64_t>(i % buffers) * stride, packet, length,
                             write) == FAULT_NONE
    return done


def dma_addresses(Nic nic, uint32_t context, uint64_t addr, uint32_t stride, uint32_t buffers,
                  uint32_t length, int n) -> int:
    """Finds the bytes of buffers in turns, checked or translated; returns addresses found."""
    cdef nic_t *c = nic.c
    cdef uint32_t i
    cdef int done = 0
    with nogil:
        for i in range(<uint32_t>n):
            done += dma_address(c, &c.context[context], addr + <uint64_t>(i % buffers) * stride,
                                length) != NULL
    return done


def deliveries(Nic nic, uint32_t context, uint32_t head, uint32_t length, int n) -> int:
    """Delivers a frame of two pieces, `head` bytes and the rest, `n` times; returns frames delivered."""
    cdef nic_t *c = nic.c
    cdef context_t *to = &c.context[context]
    cdef piece_t piece[2]
    cdef int done = 0
    piece[0].data, piece[0].len = c.segment_buffer, head
    piece[1].data, piece[1].len = c.segment_buffer + head, length - head
    with nogil:
        for _ in range(n):
            to.rx.producer = to.rx.consumer + to.rx.size
            done += deliver(c, to, piece, length, 0, 0, NULL)
    return done


# --- demultiplexing ---------------------------------------------------------------------------------------

cdef class Frames:
    """Frames in NIC memory, 128 bytes apart."""
    cdef SharedRegion _region
    cdef readonly uint32_t count
    cdef readonly uint32_t length

    def __init__(self, list frames not None):
        self.count, self.length = len(frames), len(frames[0])
        self._region = SharedRegion(128 * self.count + SLACK)
        for i, frame in enumerate(frames):
            self._region.view()[128 * i:128 * i + self.length] = memoryview(frame)


def look_up(Nic nic, Frames frames not None, int n) -> int:
    """Reads the header of `n` frames in turns and finds the context that each is for; returns those found."""
    cdef nic_t *c = nic.c
    cdef header_t header
    cdef const uint8_t *base = frames._region.base
    cdef uint32_t i, count = frames.count
    cdef int hits = 0
    with nogil:
        for i in range(<uint32_t>n):
            parse_header(&header, base + 128 * (i % count))
            hits += find_mac(c, header.destination, header.vid) != NULL
    return hits


def deliver_locally(Nic nic, Frames frames not None, int n) -> int:
    """Delivers `n` frames in turns to whoever wants them; returns deliveries."""
    cdef nic_t *c = nic.c
    cdef header_t header
    cdef piece_t piece
    cdef uint32_t i, j, count = frames.count, period = c.context[0].rx.size
    cdef bint matched
    cdef int delivered = 0
    piece.len = frames.length
    with nogil:
        for i in range(<uint32_t>n):
            if i % period == 0:         # buffers for as many frames as a ring is long
                for j in range(c.contexts):
                    c.context[j].rx.producer = c.context[j].rx.consumer + c.context[j].rx.size
            piece.data = frames._region.base + 128 * (i % count)
            parse_header(&header, piece.data)
            delivered += deliver_local(c, NULL, &header, &piece, piece.len, 0, NULL, &matched)
    return delivered


# --- interrupts -------------------------------------------------------------------------------------------

cdef void count_bit(uint32_t context, void *arg) noexcept nogil:
    (<uint64_t *>arg)[0] += 1


def raise_vectors(Nic nic, uint32_t updated, int n) -> int:
    """Writes `n` vectors with the bits of the first `updated` contexts; returns interrupts raised."""
    cdef nic_t *c = nic.c
    cdef uint64_t before = c.irq_raised
    cdef uint32_t i
    for i in range(c.contexts):
        set_bit(c.enabled, i)
    with nogil:
        for _ in range(n):
            for i in range(updated):
                set_bit(c.updated, i)
            raise_interrupt(c)
            store_u32(&c.irq.consumer, c.irq.producer)      # the VMM has read it
    return c.irq_raised - before


def decode_vectors(Tables tables, int n) -> int:
    """Decodes the newest vector `n` times, a buffer full of copies of it at a time; returns bits found."""
    cdef irq_ring_t *irq = tables.c.nic.irq
    cdef uint64_t *newest = &irq.vector[((irq.producer - 1) & (irq.slots - 1)) * irq.words]
    cdef uint32_t slot, word, part
    cdef uint64_t bits = 0
    cdef int left = n
    for slot in range(irq.slots):
        for word in range(irq.words):
            irq.vector[slot * irq.words + word] = newest[word]
    with nogil:
        while left > 0:
            part = irq.slots if <uint32_t>left > irq.slots else left
            store_u32(&irq.consumer, irq.producer - part)
            left -= decode_interrupts(tables.c, count_bit, &bits)
    return bits
