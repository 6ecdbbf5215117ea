"""The guest: netfront, and the load behind it.

A guest transmits frames of `load` to one address, receives and checks such frames, or both. Requests of each
ring are identified by a slot number that the backend echoes. Everything here is the guest's own memory,
except the shared rings and the grant entries.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.compare.paths.xen3.domain cimport xen_domain_t, xen_t
from cdna.compare.paths.xen3.grant_table cimport grant_refs_t
from cdna.compare.paths.xen3.netif cimport front_ring_t
from cdna.compare.paths.xen3.public cimport grant_entry_t, mmu_update_t, multicall_entry_t
from cdna.compare.host cimport domain_t, host_t
from cdna.nic.traffic cimport load_t

cdef enum:
    NO_BUFFER = 0xFFFFFFFF
    RX_MIN_TARGET = 64              # bounds of rx_target, as in Linux
    RX_MAX_TARGET = 256
    MAX_FRAME_PIECES = 8            # receive responses of one frame
    BAD_STATUS = 8                  # in netfront_t.bad, behind each FrameError: a response with an error
    BAD_ID = 9                      # a response to nothing that was asked
    BAD_GRANT = 10                  # a grant still in use, or a page that never came
    BAD_CHAIN = 11                  # more pieces than a frame can have

cdef struct tx_slot_t:              # one transmit request
    uint32_t ref
    uint32_t buffer                 # of a frame's last request; else NO_BUFFER

cdef struct rx_slot_t:              # one receive request
    uint32_t ref
    uint32_t pfn

cdef struct rx_piece_t:             # a response of the batch under way
    uint32_t pfn
    uint16_t offset
    uint16_t flags
    int status
    uint32_t lost                   # the page is not there

cdef struct netfront_t:
    xen_t *xen
    xen_domain_t *self
    grant_entry_t *grants
    const load_t *load
    uint8_t *memory                 # machine address 0
    uint32_t backend                # domain id
    uint32_t port                   # event channel
    uint32_t flip
    uint32_t transmit               # 1: offers load while the host is in PHASE_LOAD
    uint32_t tx_flow                # stamped on what it sends
    uint32_t rx_flow                # expected in what it receives
    uint64_t mac
    uint64_t tx_mac                 # where its frames go
    grant_refs_t refs
    # transmit
    front_ring_t tx
    uint32_t *tx_free               # stack of slot numbers
    uint32_t tx_frees
    uint32_t buffers
    uint32_t *buffer_free           # stack of frame buffers
    uint32_t buffer_frees
    uint32_t buffer_stride          # bytes
    uint32_t buffer_colours         # cache lines that a frame's start can be moved by, so many of them
    tx_slot_t tx_slot[256]
    uint64_t tx_seq                 # frames written
    uint64_t tx_done                # frames answered
    uint64_t tx_errors              # of them, with an error
    # receive
    front_ring_t rx
    uint32_t *rx_free               # stack of slot numbers
    uint32_t rx_frees
    uint32_t rx_target              # requests to keep posted: more when they run out, fewer when they idle
    uint32_t *page_free             # stack of pages to receive into, by pseudo-physical frame
    uint32_t page_frees
    rx_slot_t rx_slot[256]
    uint64_t rx_seq                 # expected next
    uint64_t rx_frames              # addressed to this guest
    uint64_t rx_bytes
    uint64_t rx_bad
    uint64_t rx_other               # flooded: addressed to somebody else
    uint64_t bad[16]
    uint64_t balloon                # pages given up and not come back (balloon_update_driver_allowance)
    uint64_t *ack                   # rx_frames, for the generator on the other core
    uint32_t n_piece
    uint32_t n_call
    rx_piece_t piece[256]
    multicall_entry_t call[260]
    mmu_update_t mmu_op[256]
    uint32_t mfn[256]
    uint8_t *flat                   # MAX_FRAME bytes: a frame of several pages, where every byte is checked
    uint32_t tx_pfn                 # first page of the transmit buffers
    uint32_t reserved

# The guest's domain_t.run.
cdef void netfront_run(domain_t *self, host_t *host) noexcept nogil
