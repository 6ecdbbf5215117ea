"""What domains and the hypervisor of the Xen 3 baseline share: Xen's public interface, as far as needed.

Names and values are those of Xen's public headers (xen/include/public: grant_table.h, event_channel.h,
memory.h, xen.h, io/netif.h, io/ring.h). A grant entry, 8 bytes, in a page that its guest writes:

     0       2        4       8
    +-------+--------+-------+
    | flags | domid  | frame |      flags and domid are read and swapped as one 32-bit word
    +-------+--------+-------+

A shared ring fills one page. Indices run freely; entry i lies in slot i & (RING_SIZE - 1):

      0          4           8          12           64
    +----------+-----------+----------+-----------+--------+-- ... --+
    | req_prod | req_event | rsp_prod | rsp_event | unused | entries |
    +----------+-----------+----------+-----------+--------+-- ... --+
"""

from libc.stdint cimport int16_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    INVALID_MFN = 0xFFFFFFFF        # P2M and M2P entries that name nothing
    FOREIGN_FRAME = 0x80000000      # P2M entry: a frame of another domain, mapped by a grant
    PTE_PRESENT = 1
    PTE_WRITE = 2
    NETIF_RING_SIZE = 256           # of 12-byte entries in 4096 - 64 bytes, rounded down to a power of two
    INVALID_REF = 0xFFFFFFFF

cdef enum ReservedDomid:
    DOMID_SELF = 0x7FF0             # the calling domain, and the first id that no domain can have

cdef enum GrantFlag:                # grant_entry_t.flags
    GTF_invalid = 0
    GTF_permit_access = 1           # the foreign domain may map or copy the frame
    GTF_accept_transfer = 2         # the foreign domain may give a frame away through this entry
    GTF_type_mask = 3
    GTF_readonly = 4                # permit_access: for reading only
    GTF_reading = 8                 # set by the hypervisor: in use for reading
    GTF_writing = 16                # set by the hypervisor: in use for writing
    GTF_transfer_committed = 4      # accept_transfer: the hypervisor has begun to write `frame`
    GTF_transfer_completed = 8      # `frame` is valid

cdef enum GrantOp:                  # commands of HYPERVISOR_grant_table_op
    GNTTABOP_map_grant_ref = 0
    GNTTABOP_unmap_grant_ref = 1
    GNTTABOP_transfer = 4
    GNTTABOP_copy = 5

cdef enum GrantMap:                 # gnttab_map_grant_ref_t.flags
    GNTMAP_host_map = 2
    GNTMAP_readonly = 4

cdef enum GrantCopy:                # gnttab_copy_t.flags
    GNTCOPY_source_gref = 1
    GNTCOPY_dest_gref = 2

cdef enum GrantStatus:
    GNTST_okay = 0
    GNTST_general_error = -1
    GNTST_bad_domain = -2           # no such domain
    GNTST_bad_gntref = -3           # no such grant reference
    GNTST_bad_handle = -4           # no such mapping
    GNTST_bad_virt_addr = -5        # no place in the page table for a mapping
    GNTST_bad_dev_addr = -6         # not the bus address of this mapping
    GNTST_no_device_space = -7      # the maptrack table is full
    GNTST_permission_denied = -8
    GNTST_bad_page = -9             # a page that is not the caller's, or has references
    GNTST_bad_copy_arg = -10        # a copy that crosses a page or names a frame of another domain

cdef enum EvtchnState:
    ECS_FREE = 0
    ECS_UNBOUND = 2                 # waits for the other side
    ECS_INTERDOMAIN = 3

cdef enum Errno:                    # results of event_channel_op, mmu_update and memory_op
    XEN_ENOENT = -2
    XEN_EINVAL = -22
    XEN_ENOSPC = -28
    XEN_ENOSYS = -38

cdef enum Hypercall:                # multicall_entry_t.op
    HYPERVISOR_mmu_update = 1
    HYPERVISOR_memory_op = 12
    HYPERVISOR_update_va_mapping = 14
    HYPERVISOR_grant_table_op = 20
    HYPERVISOR_event_channel_op = 32

cdef enum MemoryOp:
    XENMEM_increase_reservation = 0
    XENMEM_decrease_reservation = 1

cdef enum MmuUpdate:
    MMU_MACHPHYS_UPDATE = 1         # in the low bits of mmu_update_t.ptr

cdef enum EvtchnOp:
    EVTCHNOP_send = 4

cdef enum NetifFlag:
    NETTXF_more_data = 4            # the frame goes on in the next request
    NETTXF_extra_info = 8
    NETRXF_more_data = 4            # the frame goes on in the next response

cdef enum NetifStatus:
    NETIF_RSP_ERROR = -1
    NETIF_RSP_OKAY = 0

cdef struct grant_entry_t:
    uint16_t flags
    uint16_t domid                  # the foreign domain
    uint32_t frame                  # machine frame; accept_transfer: pseudo-physical frame until completed

cdef struct gnttab_map_grant_ref_t:
    uint64_t host_addr              # page number in the caller's page table: where to map
    uint32_t flags                  # GrantMap
    uint32_t ref
    uint16_t dom                    # whose grant
    int16_t status                  # out
    uint32_t handle                 # out
    uint64_t dev_bus_addr           # out, machine address

cdef struct gnttab_unmap_grant_ref_t:
    uint64_t host_addr
    uint64_t dev_bus_addr           # or 0
    uint32_t handle
    int16_t status                  # out

cdef struct gnttab_transfer_t:
    uint64_t mfn
    uint16_t domid                  # to whom
    uint32_t ref                    # the receiver's entry
    int16_t status                  # out

cdef struct gnttab_copy_ptr_t:
    uint64_t frame                  # a grant reference or a machine frame, by gnttab_copy_t.flags
    uint16_t domid
    uint16_t offset

cdef struct gnttab_copy_t:
    gnttab_copy_ptr_t source
    gnttab_copy_ptr_t dest
    uint16_t len
    uint16_t flags                  # GrantCopy
    int16_t status                  # out

cdef struct mmu_update_t:
    uint64_t ptr                    # machine address | MMU_MACHPHYS_UPDATE
    uint64_t val                    # pseudo-physical frame

cdef struct multicall_entry_t:
    uint32_t op                     # Hypercall
    int32_t result                  # out: 0 or an Errno
    uint64_t args[3]

cdef struct shared_info_t:          # one page a domain
    uint32_t evtchn_upcall_pending
    uint32_t _pad0
    uint64_t evtchn_pending_sel     # bit i: look at word i
    uint64_t _pad1[6]
    uint64_t evtchn_pending[64]     # words of 64 ports each
    uint64_t evtchn_mask[64]

cdef struct netif_tx_request_t:
    uint32_t gref
    uint16_t offset                 # in the page
    uint16_t flags                  # NetifFlag
    uint16_t id                     # echoed in the response
    uint16_t size                   # first request: of the whole frame; the others: of this piece

cdef struct netif_tx_response_t:
    uint16_t id
    int16_t status                  # NetifStatus

cdef struct netif_rx_request_t:
    uint16_t id
    uint16_t _pad
    uint32_t gref

cdef struct netif_rx_response_t:
    uint16_t id
    uint16_t offset                 # in the page
    uint16_t flags                  # NetifFlag
    int16_t status                  # bytes in this piece, or a negative NetifStatus

cdef union netif_tx_entry_t:
    netif_tx_request_t req
    netif_tx_response_t rsp

cdef union netif_rx_entry_t:
    netif_rx_request_t req
    netif_rx_response_t rsp

cdef struct sring_t:                # head of every shared ring
    uint32_t req_prod
    uint32_t req_event              # backend: tell me when req_prod passes this
    uint32_t rsp_prod
    uint32_t rsp_event              # frontend: tell me when rsp_prod passes this
    uint8_t _pad[48]

cdef struct netif_tx_sring_t:
    sring_t head
    netif_tx_entry_t ring[256]

cdef struct netif_rx_sring_t:
    sring_t head
    netif_rx_entry_t ring[256]
