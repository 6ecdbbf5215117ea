/* The checks, a line each, and beside it the place in the code. `spin -a -DWITHOUT=OWNER protection.pml` leaves one
 * out, and the search then finds what it is for. tests/models/ does so with each, and says what the code calls it.
 */

/* the VMM, a hypercall */
#define CONTEXT     1   /* the context is the caller's own                     protection.pyx, owned */
#define ROOM        2   /* the ring has room                                   protection.pyx, take_requests */
#define ADDRESS     3   /* the page is within memory                           protection.pyx, pin */
#define OWNER       4   /* the page is the caller's own                        protection.pyx, pin */
#define FETCH       5   /* a request is read once                              protection.pyx, take_requests */
#define PIN         6   /* the page is pinned until its DMA is over            protection.pyx, pin */
#define COMPLETED   7   /* unpinned is what the NIC says, not the guest's page protection.pyx, completed_upto */
#define WRITE_ORDER 8   /* a descriptor's address is written before its number protection.pyx, write_desc */
#define GIVE_OWNER  9   /* who gives a page away owns it                       protection.pyx, transfer */
#define GIVE_PINNED 10  /* a pinned page stays                                 protection.pyx, transfer */
#define GIVE_MAPPED 11  /* a page that another process maps stays              hypervisor.py, transfer */

/* the VMM, a context that comes or goes */
#define MODULUS     12  /* twice as many numbers as slots                      device.pyx, configure */
#define STANDSTILL  13  /* the NIC stands still between rounds meanwhile       engine_thread.pyx, quiesced */
#define REAP        14  /* all pins of the context are dropped                 protection.pyx, reap_all */
#define CLEAR       15  /* nothing is left in the rings                        device.pyx, release */
#define TAKE_BACK   16  /* mappings are replaced before pages are free         memory.pyx, release */

/* the NIC */
#define STATE       17  /* a context that is stopped is not served             doorbell.pxd, take_doorbell */
#define PRODUCER    18  /* at most a ring is announced                         doorbell.pxd, accept_producer */
#define SEQUENCE    19  /* the descriptor carries the next number              native/ring.pxd, in_sequence */
#define READ_ORDER  20  /* a descriptor's number is read before its address    native/ring.pxd, read_desc */
#define LOOK_AGAIN  21  /* after a standstill, look whether another one began  engine.pxd, stood_still */

/* mode `iommu`: the VMM */
#define MAP_RANGE   31  /* the I/O page is within the context's table          protection.pyx, iommu_map */
#define MAP_FREE    32  /* and nothing is mapped there                         protection.pyx, iommu_map */
#define UNMAP_RANGE 33  /* the I/O page is within the context's table          protection.pyx, iommu_unmap */
#define UNMAP_MAPPED 34 /* and something is mapped there                       protection.pyx, iommu_unmap */
#define LIMBO_ROOM  35  /* there is room for what has to wait                  protection.pyx, iommu_unmap */
#define LIMBO       36  /* an unmapped page waits until no round can hold it   protection.pyx, reap_limbo */
/* and the NIC */
#define TRANSLATE_RANGE 37      /* the address is within the table             native/dma.pxd, translate */
#define TRANSLATE_PRESENT 38    /* and mapped                                  native/dma.pxd, translate */

#ifndef WITHOUT
#define WITHOUT     0
#endif
#define MADE(check)         (WITHOUT != check)
#define BROKEN(check, bad)  (MADE(check) && (bad))
