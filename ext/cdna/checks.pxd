"""The checks that the NIC and its VMM make against guests, by name, and double fetches that can be planted.

In the code a check reads `if broken(CHECK_SEQUENCE, desc.seq != expected):`. In an ordinary build that is the
condition alone; in a test build (`ext/cdna/checks.h`, docs/checks.md) each check can be switched off, and for
each there is a test that notices (`tests/checks/`). What is decided otherwise, a limit of work or a state of
the NIC's own, has no name here. The comments are the table in docs/checks.md.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cpdef enum Check:
    # ext/cdna/nic/doorbell.pxd: producer indices
    CHECK_PRODUCER_AHEAD            # a producer index is no more than a ring ahead of the NIC
    CHECK_PRODUCER_BACK             # a producer index never goes back
    # ext/cdna/nic/native/ring.pxd: descriptors
    CHECK_SEQUENCE                  # a descriptor has the number that the next one must carry (validated)
    # ext/cdna/nic/native/tx.pxd: a frame in one descriptor
    CHECK_TX_SHORT                  # a frame has an Ethernet header
    CHECK_TX_LONG                   # a frame has at most MAX_FRAME bytes
    CHECK_TX_VNET_SHORT             # a frame has a virtio-net header and an Ethernet header
    CHECK_TX_VNET_LONG              # behind a virtio-net header, a frame without work has at most MAX_FRAME
    # ext/cdna/nic/native/gather.pxd: a frame in several descriptors
    CHECK_FRAGMENT_FLAGS            # a fragment has no unknown flag
    CHECK_FRAGMENT_EMPTY            # a fragment has bytes
    CHECK_FRAGMENT_LONG             # fragments stay within the limit of their frame, and so within NIC memory
    CHECK_FRAGMENTS_SHORT           # fragments together have an Ethernet header
    CHECK_FRAGMENTS_MANY            # a frame has at most MAX_FRAGMENTS
    CHECK_FRAGMENTS_RING            # a frame ends within its ring
    CHECK_FRAGMENTS_VNET_LONG       # the same of several descriptors
    # ext/cdna/nic/native/rx.pxd: receive buffers
    CHECK_RX_POSTED                 # a frame goes into a buffer that was posted
    CHECK_RX_EMPTY                  # a buffer has bytes
    CHECK_RX_FLAGS                  # a receive descriptor has no unknown flag
    CHECK_RX_ROOM                   # a frame goes into one buffer only where it fits
    CHECK_SCATTER_POSTED            # a frame that is scattered goes into buffers that were posted
    CHECK_SCATTER_POSTED_AGAIN      # also when their lengths have changed since they were added up
    CHECK_SCATTER_REST              # no more is written than is left of the frame
    # ext/cdna/nic/native/dma.pxd: addresses
    CHECK_DMA_START                 # a buffer begins in machine memory
    CHECK_DMA_END                   # a buffer ends in machine memory
    CHECK_IO_RANGE                  # an I/O address is within the context's I/O page table
    CHECK_IO_PRESENT                # an I/O page is mapped
    CHECK_IO_CROSSING               # what is translated at once lies in one I/O page
    # ext/cdna/nic/switch.pxd: the frame's addresses
    CHECK_SPOOF                     # the source address is the context's own
    CHECK_CONTROL                   # nor is the frame one for the link, such as PAUSE
    CHECK_TAG_SHORT                 # a tagged frame has its tag
    CHECK_TAG                       # an access port sends no frame of a VLAN
    CHECK_TAG_NESTED                # nor one with a tag behind the tag
    CHECK_TX_MTU                    # a frame is no longer than the context's MTU allows
    # ext/cdna/nic/learn.pxd: addresses behind a guest
    CHECK_LEARN_OWN                 # no context's own address is learned behind another
    CHECK_LEARN_HOLD                # nor one that was seen elsewhere just now
    CHECK_LEARN_MANY                # a context has at most LEARNED of them
    # ext/cdna/nic/offload/vnet.pxd: virtio-net headers and what is left to do
    CHECK_OFFLOAD_LONG              # a frame that is not to be segmented has at most MAX_FRAME bytes
    CHECK_MSS                       # a segment is no longer than a frame
    CHECK_SEGMENTS                  # a frame has at most MAX_SEGMENTS
    CHECK_GSO_CSUM                  # a large frame without an open checksum is UDP to be fragmented, over IP
    CHECK_GSO_TCP                   # the TCP header is within what is looked at
    CHECK_GSO_FAMILY                # a TCP frame is of the family that its header says
    CHECK_GSO_TYPE                  # the type is known
    CHECK_GSO_SIZE                  # segments have bytes
    CHECK_GSO_START                 # their checksum starts within what is looked at
    # ext/cdna/nic/offload/segmentation.pxd: a frame that is to be segmented
    CHECK_TSO_LONG                  # the frame fits NIC memory
    CHECK_TSO_MSS                   # segments have bytes
    CHECK_TSO_HEADERS               # headers end before the frame does
    CHECK_TSO_HEADERS_LONG          # headers are at most MAX_HEADERS bytes
    CHECK_TSO_TRANSPORT             # its checksum starts where its transport header does
    CHECK_TSO_KIND                  # the kind is known
    CHECK_TSO_SEGMENT               # no segment is longer than MAX_FRAME
    CHECK_TCP_PROTOCOL              # TCP: the packet is TCP
    CHECK_TCP_CSUM                  # TCP: the checksum is where TCP has it
    CHECK_TCP_SHORT                 # TCP: the header is whole
    CHECK_TCP_OFFSET                # TCP: the header is as long as it says
    CHECK_TCP_FLAGS                 # TCP: no SYN, no RST
    CHECK_UDP_PROTOCOL              # UDP: the packet is UDP
    CHECK_UDP_HEADER                # UDP: headers end behind the UDP header
    CHECK_UDP_CSUM                  # UDP: the checksum is where UDP has it
    CHECK_FRAGMENT_PROTOCOL         # fragments: the packet is UDP
    CHECK_FRAGMENT_HEADER           # fragments: headers end behind the UDP header
    CHECK_FRAGMENT_CSUM             # fragments: the checksum is where UDP has it, or none is wanted
    CHECK_FRAGMENT_IPV4             # fragments: the packet is no longer than IPv4 can say
    CHECK_FRAGMENT_MSS              # fragments: each has at least 8 bytes
    # ext/cdna/nic/offload/transport_checksum.pxd: a checksum that is to be completed
    CHECK_CSUM_START                # the sum starts behind Ethernet and its tags
    CHECK_CSUM_START_END            # and within the frame
    CHECK_CSUM_OFFSET               # the field is within the frame
    CHECK_CSUM_FIELD                # and whole
    # ext/cdna/nic/offload/ip.pxd: lengths in headers
    CHECK_ETHERNET_SHORT            # the frame has an Ethernet header
    CHECK_ETHERNET_TAG              # the frame has the tags that it announces
    CHECK_IPV4_SHORT                # the frame has an IPv4 header
    CHECK_IPV4_VERSION              # its version is 4
    CHECK_IPV4_FRAGMENT             # it is no fragment
    CHECK_IPV4_HEADER               # the header is as long as it must be
    CHECK_IPV4_OPTIONS              # and the frame has all of it
    CHECK_IPV6_SHORT                # the frame has an IPv6 header
    CHECK_IPV6_VERSION              # its version is 6
    CHECK_IPV6_EXTENSION            # the frame has the beginning of each extension header
    CHECK_IPV6_EXTENSION_END        # and all of it
    CHECK_IPV6_ROUTING              # a checksum is verified where no routing header has segments left
    # ext/cdna/nic/virtio/memory.pxd: a virtio guest's addresses
    CHECK_GUEST_ADDRESS             # an address is in one of the guest's regions
    CHECK_GUEST_RUN                 # a run ends where its region does
    CHECK_GUEST_BYTES               # what is used in one piece lies in one region
    CHECK_USER_ADDRESS              # a part of a ring begins in a region
    CHECK_USER_END                  # and ends there
    CHECK_LOG_END                   # a page that is logged has a bit in the log
    # ext/cdna/nic/virtio/queue.pxd: rings
    CHECK_AVAILABLE                 # no more is available than the ring holds
    CHECK_HEAD                      # a chain begins in the ring's table
    # ext/cdna/nic/virtio/chain.pxd: chains
    CHECK_CHAIN_STEPS               # a chain has at most 256 descriptors
    CHECK_CHAIN_PIECES              # that lie in at most 256 pieces
    CHECK_CHAIN_BYTES               # and 32 bits count its bytes
    CHECK_CHAIN_DIRECTION           # a buffer is of the queue's direction
    CHECK_CHAIN_ORDER               # of a command, what the driver wrote comes first
    CHECK_CHAIN_INDEX               # the next descriptor is in the table
    CHECK_CHAIN_SLOTS               # a chain has no more slots than its ring (packed)
    CHECK_INDIRECT_FEATURE          # indirect tables were negotiated
    CHECK_INDIRECT_FLAGS            # the descriptor of a table has no next one
    CHECK_INDIRECT_EMPTY            # a table has entries
    CHECK_INDIRECT_SIZE             # whole ones
    CHECK_INDIRECT_NESTED           # no table is in a table
    # ext/cdna/nic/virtio/tx.pxd: buffers to send
    CHECK_BUFFER_FLAGS              # a buffer of one descriptor has no next one, no table, and is to be read
    CHECK_BUFFER_HEADER             # a buffer of one descriptor has a virtio-net header
    CHECK_CHAIN_HEADER              # a chain has a virtio-net header
    CHECK_FLAT_SHORT                # a frame in one piece has an Ethernet header
    CHECK_FLAT_LONG                 # and at most MAX_FRAME bytes
    CHECK_PIECES_SHORT              # a frame in pieces has an Ethernet header
    CHECK_PIECES_WORK               # and at most MAX_FRAME bytes where there is no work to do
    CHECK_COLLECTED_WORK            # also when its headers have changed since they were read
    CHECK_COLLECTED_LONG            # a frame that is collected fits NIC memory
    # ext/cdna/nic/virtio/rx.pxd: buffers to fill
    CHECK_FILL_FLAGS                # a buffer of one descriptor is to be written, without next one and table
    CHECK_FILL_ROOM                 # a frame goes into one buffer only where it fits
    CHECK_MERGED_MANY               # a frame takes at most MAX_MERGED buffers
    CHECK_MERGED_FEATURE            # and one where MRG_RXBUF was not negotiated
    CHECK_MERGED_AVAILABLE          # each of them was made available
    CHECK_MERGED_CRUMBS             # and they are not crumbs
    # ext/cdna/nic/virtio/queue_setup.pxd, ext/cdna/nic/virtio/queue_setup.pyx: setting rings up
    CHECK_RING_ALIGNED              # parts of a ring are aligned
    CHECK_RING_NOTED                # a position that was noted is in the ring
    CHECK_RING_STARTED              # a ring that is served does not change its size or position
    CHECK_RING_POWER                # the size of a split ring is a power of two
    CHECK_RING_BASE                 # a packed ring begins at an index that it has
    CHECK_RING_EMPTY                # a ring that is started has a size
    CHECK_RING_INDEX                # and stands at an index that it has
    CHECK_RING_LOCATED              # and lies in the guest's memory
    # ext/cdna/nic/virtio/device.pyx, ext/cdna/nic/virtio/inflight.pxd: what is asked of the device
    CHECK_OFFLOADS_ACCEPTED         # offloads that are to count were accepted as features
    CHECK_INFLIGHT_SIZE             # an inflight area is as large as its queues need
    CHECK_INFLIGHT_QUEUE            # a queue has a part of it
    CHECK_INFLIGHT_DESCRIPTORS      # a part of it is large enough for the ring
    CHECK_INFLIGHT_END              # and within the file
    CHECK_INFLIGHT_INDEX            # the positions in it are in the ring
    # ext/cdna/nic/virtio/device_setup.pyx: features, receive-side scaling
    CHECK_FEATURES_MODERN           # packed rings come with VERSION_1
    CHECK_FORMAT_STARTED            # the format of a ring does not change while it is served
    CHECK_RSS_TABLE                 # an RSS table fits, and is a power of two
    CHECK_RSS_KEY                   # an RSS key is as long as it must be
    # ext/cdna/nic/virtio/control_queue.pyx: commands
    CHECK_COMMAND_HEAD              # a command has a class and a number
    CHECK_COMMAND_ANSWER            # and a byte for the answer
    CHECK_COMMAND_LONG              # and at most MAX_COMMAND bytes
    # ext/cdna/vmm/protection.pyx: hypercalls
    CHECK_CONTEXT_RANGE             # there is such a context
    CHECK_CONTEXT_OWNER             # it is the caller's
    CHECK_CONTEXT_RUNNING           # and runs
    CHECK_RING_NUMBER               # and has such a ring
    CHECK_ENQUEUE_MODE              # only in mode validated are descriptors enqueued
    CHECK_RING_FULL                 # the ring has room
    CHECK_REQUEST_FLAGS             # a request has no unknown flag
    CHECK_PIN_EMPTY                 # a buffer has bytes
    CHECK_PIN_START                 # begins in machine memory
    CHECK_PIN_END                   # ends there
    CHECK_PIN_OWNER                 # and every page of it is the caller's
    CHECK_MAP_MODE                  # only in mode iommu are pages mapped
    CHECK_MAP_IO_RANGE              # the I/O page is within the table
    CHECK_MAP_RANGE                 # the page is in machine memory
    CHECK_MAP_OWNER                 # and the caller's
    CHECK_MAP_MAPPED                # the I/O page is free
    CHECK_UNMAP_MODE                # only in mode iommu are pages unmapped
    CHECK_UNMAP_RANGE               # the I/O page is within the table
    CHECK_UNMAP_MAPPED              # and mapped
    CHECK_UNMAP_LIMBO               # pages that are still in use have room to wait
    CHECK_LIMBO_EPOCH               # they wait until the NIC has finished two rounds
    CHECK_TRANSFER_RANGE            # a page that is given away is in machine memory
    CHECK_TRANSFER_OWNER            # the caller's
    CHECK_TRANSFER_PINNED           # and not in use
    # ext/cdna/vmm/hypercall_buffer.pyx: messages
    CHECK_MESSAGE_HEAD              # a message has a header
    CHECK_MESSAGE_OP                # the operation is known
    CHECK_MESSAGE_RESERVED          # reserved fields are 0
    CHECK_MESSAGE_RING              # and so is the ring where there is none
    CHECK_MESSAGE_ENTRIES           # it has at most HYPERCALL_BATCH entries
    CHECK_MESSAGE_NO_ENTRIES        # none where the operation has none
    CHECK_MESSAGE_LENGTH            # and is as long as they are
    CHECK_REAP_OWNER                # the context whose pins are dropped is the caller's

cpdef enum Plant:                   # read twice, the second time after the check
    PLANT_DESC_LEN                  # the length of a transmit descriptor (iommu)
    PLANT_DESC_ADDR                 # the address of a receive descriptor (iommu)
    PLANT_REQUEST_ADDR              # the address in an enqueue request
    PLANT_VIRTIO_LEN                # the length of a transmit buffer of one descriptor (split)
    PLANT_VIRTIO_ADDR               # the address in a descriptor of a chain (split)
    PLANT_VIRTIO_NEXT               # the index of the next one
    PLANT_INDIRECT_LEN              # the length of an indirect table
    PLANT_AVAILABLE                 # the available index (split)
    PLANT_VNET_HEADER               # csum_start in a virtio-net header

cdef extern from "checks.h" nogil:
    const bint CDNA_IS_TEST_BUILD
    struct cdna_check_table:
        uint8_t off[256]
        uint8_t plant[64]
        uint64_t found[256]
        uint64_t passed[256]
        uint64_t steps
        uint64_t kill_at
    cdna_check_table *cdna_checks
    # Whether a rule is broken: the condition; in a test build, of a check that is off, never.
    bint broken(Check check, bint condition)
    # `local`; in a test build with this plant, what stands in the guest's memory now.
    uint16_t again_u16(Plant plant, uint16_t local, const uint16_t *memory)
    uint32_t again_u32(Plant plant, uint32_t local, const uint32_t *memory)
    uint64_t again_u64(Plant plant, uint64_t local, const uint64_t *memory)
    # A step of the protocol, between two of which a process may be killed; only in a test build.
    void cdna_step()
