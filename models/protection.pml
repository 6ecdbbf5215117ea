/* DMA protection in mode `validated`: two hostile guests with a context each, the VMM, the NIC (docs/model.md).
 *
 *   spin -a protection.pml && gcc -O2 -DSAFETY -DMEMLIM=4000 -o pan pan.c && ./pan -m3000000
 *
 * A guest has no process here. It may write what it can write at any moment, so whoever reads that reads
 * anything: ANY below. It may ask for anything at any moment, so the VMM is asked anything, for ever. That it ends
 * is one more thing that happens to the VMM. When VMM and NIC end, which are one process, no step follows:
 * that is where a run stops, and what is asserted holds wherever it stops.
 */

#include "checks.pml"

#define SHARED      2           /* the page that changes hands; pages 0 and 1 stay with guests 0 and 1 */
#define PAGES       3
#define NOWHERE     PAGES       /* the number of a page behind the end of memory */
#define NOBODY      2           /* owns a page that is free */

#ifndef SLOTS0
#define SLOTS0      4           /* of each context's ring; powers of two */
#endif
#ifndef SLOTS1
#define SLOTS1      2
#endif
#define SLOTS(c)    (c == 0 -> SLOTS0 : SLOTS1)
/* Indices and numbers count modulo two rings. That is the least that MODULUS allows: without it there is one. */
#define INDICES(c)  (2 * SLOTS(c))
#define NUMBERS(c)  (MADE(MODULUS) -> 2 * SLOTS(c) : SLOTS(c))

#define AHEAD(c, a, b)      ((a - b) & (INDICES(c) - 1))        /* steps from index b to index a */
#define NEXT(c, a)          ((a + 1) & (INDICES(c) - 1))
#define SLOT(c, a)          (a & (SLOTS(c) - 1))
#define NUMBER(c, a)        ((a + 1) & (NUMBERS(c) - 1))        /* the first is 1: an empty slot carries 0 */

typedef Ring {                  /* of context 0, which is guest 0's, and of context 1 */
    byte page[4];               /* of a descriptor: where its buffer is */
    byte number[4];             /* and its sequence number */
    byte producer;              /* VMM: next slot to write */
    byte reaped;                /* VMM: pins below it are dropped */
    byte consumer;              /* NIC: next slot to use; the VMM reads it */
    bool assigned;
    bool running
}

Ring ring[2];
byte owner[PAGES] = NOBODY;
byte pins[PAGES];
bool mapped;                    /* the shared page, by the process of guest 1; guest 0 lives in the VMM's */
bool pause, paused;             /* the NIC shall stand still; it does */

#define ANY_GUEST(g)    if :: g = 0 :: g = 1 fi
#define ANY_CONTEXT(c)  if :: c = 0 :: c = 1 fi
/* That guest 1 hands over no page of its own but the shared one saves most of the states. Guest 0 does both. */
#define ANY_PAGE(g, p)  if :: p = 0 :: g == 0 -> p = 1 :: p = SHARED :: p = NOWHERE fi
#define ANY_INDEX(c, i) select(i : 0 .. INDICES(c) - 1)

/* --- the VMM -------------------------------------------------------------------------------------------------- */

#define REAPED(c)       ring[c].page[SLOT(c, ring[c].reaped)]

inline reap(c, upto) {          /* drops the pins of the descriptors below `upto` */
    do
    :: ring[c].reaped != upto ->
        if
        :: MADE(PIN) -> assert(pins[REAPED(c)] > 0); pins[REAPED(c)]--
        :: else
        fi;
        ring[c].reaped = NEXT(c, ring[c].reaped)
    :: else -> break
    od
}

inline reap_completed(c, upto) {
    if
    :: MADE(COMPLETED) -> upto = ring[c].consumer
    :: else -> ANY_INDEX(c, upto);
        if :: AHEAD(c, upto, ring[c].reaped) <= AHEAD(c, ring[c].producer, ring[c].reaped) :: else -> goto asked fi
    fi;
    reap(c, upto)
}

inline write_page(c, p)  { ring[c].page[SLOT(c, ring[c].producer)] = p }
inline write_number(c)   { ring[c].number[SLOT(c, ring[c].producer)] = NUMBER(c, ring[c].producer) }

inline enqueue(g, c, p, upto) { /* one request: guest g hands page p to the NIC */
    atomic {
        ANY_GUEST(g); ANY_CONTEXT(c);
        if
        :: BROKEN(CONTEXT, c != g) || !ring[c].assigned || !ring[c].running -> goto asked
        :: else
        fi;
        reap_completed(c, upto);
        if
        :: BROKEN(ROOM, AHEAD(c, ring[c].producer, upto) == SLOTS(c)) -> goto asked
        :: else
        fi;
        upto = 0;
        ANY_PAGE(g, p);
        if
        :: BROKEN(ADDRESS, p == NOWHERE) -> goto asked
        :: else
        fi;
        assert(p < PAGES);      /* the frame table ends there */
        if
        :: BROKEN(OWNER, owner[p] != g) -> goto asked
        :: else
        fi;
        if
        :: MADE(PIN) -> pins[p]++
        :: else
        fi;
        if
        :: MADE(FETCH)
        :: else -> if :: p = g :: p = SHARED fi     /* what the guest has made of its request meanwhile */
        fi;
        if
        :: MADE(WRITE_ORDER) -> write_page(c, p); p = 0; g = 0
        :: else -> write_number(c)
        fi
    }
    atomic {
        if
        :: MADE(WRITE_ORDER) -> write_number(c)
        :: else -> write_page(c, p)
        fi;
        ring[c].producer = NEXT(c, ring[c].producer);
        goto asked
    }
}

inline transfer(g, upto) {              /* guest g gives the shared page to the other */
    atomic {
        ANY_GUEST(g);
        if
        :: ring[g].assigned -> reap_completed(g, upto)
        :: else
        fi;
        if
        :: BROKEN(GIVE_OWNER, owner[SHARED] != g) || BROKEN(GIVE_PINNED, pins[SHARED] > 0) ||
            BROKEN(GIVE_MAPPED, mapped) -> goto asked
        :: else
        fi;
        assert(owner[SHARED] == g);     /* it must not change memory that is not its own */
        assert(!mapped);                /* nor read it: its process would still see the page */
        owner[SHARED] = 1 - g;
        goto asked
    }
}

#define STANDS_STILL    (paused || !MADE(STANDSTILL))

inline revoke(c, i) {
    STANDS_STILL;
    atomic {                            /* halt: from here on the NIC does not serve it */
        ring[c].running = false; pause = false;
        if                              /* close_context: its pins are dropped */
        :: MADE(REAP) -> reap(c, ring[c].producer)
        :: else
        fi
    }
    pause = true;
    atomic {                            /* release: its rings are emptied */
        STANDS_STILL;
        i = 0;
        do
        :: MADE(CLEAR) && i < SLOTS(c) -> ring[c].page[i] = 0; ring[c].number[i] = 0; i++
        :: else -> break
        od;
        i = 0;
        ring[c].producer = 0; ring[c].reaped = 0; ring[c].consumer = 0;
        ring[c].assigned = false;
        pause = false;
        assert(pins[c] == 0);           /* nothing is left behind, on its own page */
        assert(owner[SHARED] != c || pins[SHARED] == 0);        /* nor on the other */
        goto asked
    }
}

inline take_back() {                    /* a guest has ended, of its own will or by kill -9: its page is free */
    atomic {
        !ring[owner[SHARED]].assigned;
        if
        :: MADE(TAKE_BACK) -> mapped = false
        :: else
        fi;
        owner[SHARED] = NOBODY
    }
}

inline allocate(g) {                    /* and somebody else's, who maps it, too, if he is in another process */
    atomic {
        owner[SHARED] == NOBODY;
        assert(!mapped);                /* nobody who is gone still does */
        assert(pins[SHARED] == 0);
        ANY_GUEST(g);
        owner[SHARED] = g;
        mapped = (g == 1);
        goto asked
    }
}

active proctype VMM() {
    byte g, c, p, upto;
    atomic { owner[0] = 0; owner[1] = 1 };
    allocate(g);
asked:
    atomic { g = 0; c = 0; p = 0; upto = 0 };
    if
    :: enqueue(g, c, p, upto)
    :: transfer(g, upto)
    :: atomic { ring[0].assigned -> c = 0; pause = true }; revoke(c, p)
    :: atomic { ring[1].assigned -> c = 1; pause = true }; revoke(c, p)
    :: atomic { !ring[0].assigned -> ring[0].assigned = true; ring[0].running = true; goto asked }
    :: atomic { !ring[1].assigned -> ring[1].assigned = true; ring[1].running = true; goto asked }
    :: take_back(); allocate(g)
    fi
}

/* --- the NIC -------------------------------------------------------------------------------------------------- */

inline read_number(c, number, enqueued) {
    number = ring[c].number[SLOT(c, ring[c].consumer)];
    /* Which the NIC does not know; it is there to be asserted. */
    enqueued = (ring[c].consumer != ring[c].producer)
}

inline read_page(c, p) {
    p = ring[c].page[SLOT(c, ring[c].consumer)]
}

/* "It must not read or change memory that is not its own": at no moment of the DMA. */
inline touches(c, p) {
    assert(ring[c].assigned && owner[p] == c);
    assert(WITHOUT == PIN || pins[p] > 0)
}

inline judge(c, announced, number, enqueued) {
    if
    :: BROKEN(SEQUENCE, number != NUMBER(c, ring[c].consumer)) ->
        assert(!enqueued);      /* nobody is stopped but for what he did: he announced what he had not handed over */
        goto fault
    :: else
    fi;
    assert(enqueued);           /* each descriptor is used once, in the order in which they were handed over */
    number = 0; enqueued = false
}

active proctype NIC() {
    byte c, announced, number, p;
    bool enqueued;
look:
    atomic { c = 0; announced = 0; number = 0; p = 0; enqueued = false };
    do
    :: atomic { pause -> paused = true }; !pause; paused = false;
        if
        :: MADE(LOOK_AGAIN)
        :: else -> break
        fi
    :: atomic { !pause -> break }
    od;
    atomic {                            /* a turn of one context: its mailbox first */
        ANY_CONTEXT(c);
        if
        :: BROKEN(STATE, !ring[c].running) -> goto look
        :: else
        fi;
        ANY_INDEX(c, announced);
        if
        :: announced == ring[c].consumer -> goto look
        :: BROKEN(PRODUCER, AHEAD(c, announced, ring[c].consumer) > SLOTS(c)) -> goto fault
        :: else
        fi;
        assert(AHEAD(c, announced, ring[c].consumer) <= SLOTS(c));  /* nobody takes more than a ring's worth of work */
        announced = 0;
        if
        :: MADE(READ_ORDER) -> read_number(c, number, enqueued); judge(c, announced, number, enqueued)
        :: else -> read_page(c, p)
        fi
    }
    atomic {
        if
        :: MADE(READ_ORDER) -> read_page(c, p)
        :: else -> read_number(c, number, enqueued); judge(c, announced, number, enqueued)
        fi;
        touches(c, p)
    }
    atomic { touches(c, p); ring[c].consumer = NEXT(c, ring[c].consumer); goto look }
fault:
    atomic { ring[c].running = false; goto look }
}
