/* DMA protection in mode `iommu`: the guest writes its ring itself, the NIC translates (docs/model.md).
 *
 *   spin -a iommu.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan -m1000000
 *
 * As in protection.pml, of which this is the other half. The ring has no state here: a guest writes it at any
 * moment, so the NIC reads any descriptor. What has state is the I/O page table, which the VMM writes and the
 * NIC reads, and the limbo: the pages that were unmapped and that a round of the NIC may still be using.
 */

#include "checks.pml"

#define SHARED      2           /* the page that changes hands; pages 0 and 1 stay with guests 0 and 1 */
#define PAGES       3
#define NOWHERE     PAGES       /* the number of a page behind the end of memory */
#define NONE        PAGES       /* in the table: not mapped; in the limbo: no entry */
#define NOBODY      2           /* owns a page that is free */
#define IO_PAGES    2           /* of each context; its limbo is as long */
#define OLD         4           /* half rounds of the NIC: LIMBO_EPOCHS */

typedef Context {               /* context 0 is guest 0's, context 1 is guest 1's */
    byte table[IO_PAGES] = NONE;
    byte limbo[IO_PAGES] = NONE;        /* a queue: the oldest first */
    byte age[IO_PAGES];         /* half rounds since it was unmapped, up to OLD */
    bool assigned;
    bool running
}

Context context[2];
byte owner[PAGES] = NOBODY;
byte pins[PAGES];
bool in_round;                  /* the NIC's epoch is odd */
bool pause, paused;

#define ANY_GUEST(g)        if :: g = 0 :: g = 1 fi
#define ANY_CONTEXT(c)      if :: c = 0 :: c = 1 fi
#define ANY_PAGE(g, p)      if :: p = 0 :: g == 0 -> p = 1 :: p = SHARED :: p = NOWHERE fi
#define ANY_IO_PAGE(at)     if :: at = 0 :: at = 1 :: at = IO_PAGES fi

/* --- the VMM -------------------------------------------------------------------------------------------------- */

#define IDLE            (paused && !in_round)
#define STILL_USED(c)   (BROKEN(LIMBO, context[c].age[0] < OLD && !IDLE))

inline drop_oldest(c) {
    assert(pins[context[c].limbo[0]] > 0);
    pins[context[c].limbo[0]]--;
    context[c].limbo[0] = context[c].limbo[1]; context[c].age[0] = context[c].age[1];
    context[c].limbo[1] = NONE; context[c].age[1] = 0
}

inline reap_limbo(c, stopped) {
    do
    :: context[c].limbo[0] != NONE && (stopped || !STILL_USED(c)) -> drop_oldest(c)
    :: else -> break
    od
}

inline begin(g, c) {            /* of a hypercall */
    ANY_GUEST(g); ANY_CONTEXT(c);
    if
    :: BROKEN(CONTEXT, c != g) || !context[c].assigned || !context[c].running -> goto asked
    :: else
    fi;
    reap_limbo(c, false)
}

inline map(g, c, at, p) {
    atomic {
        begin(g, c);
        ANY_IO_PAGE(at); ANY_PAGE(g, p);
        if
        :: BROKEN(MAP_RANGE, at == IO_PAGES) || BROKEN(ADDRESS, p == NOWHERE) -> goto asked
        :: else
        fi;
        assert(at < IO_PAGES);          /* the table ends there */
        assert(p < PAGES);              /* and the frame table there */
        if
        :: BROKEN(OWNER, owner[p] != g) || BROKEN(MAP_FREE, context[c].table[at] != NONE) -> goto asked
        :: else
        fi;
        if
        :: MADE(PIN) -> pins[p]++
        :: else
        fi;
        context[c].table[at] = p;
        goto asked
    }
}

inline unmap(g, c, at) {
    atomic {
        begin(g, c);
        ANY_IO_PAGE(at);
        if
        :: BROKEN(UNMAP_RANGE, at == IO_PAGES) -> goto asked
        :: else
        fi;
        assert(at < IO_PAGES);
        if
        :: BROKEN(UNMAP_MAPPED, context[c].table[at] == NONE) ||
            BROKEN(LIMBO_ROOM, context[c].limbo[1] != NONE) -> goto asked
        :: else
        fi;
        assert(context[c].table[at] != NONE);           /* page 0 is somebody's, and no entry's */
        assert(context[c].limbo[1] == NONE);            /* what waits is not forgotten */
        if
        :: context[c].limbo[0] == NONE -> context[c].limbo[0] = context[c].table[at]; context[c].age[0] = 0
        :: else -> context[c].limbo[1] = context[c].table[at]; context[c].age[1] = 0
        fi;
        context[c].table[at] = NONE;
        goto asked
    }
}

inline transfer(g) {            /* guest g gives the shared page to the other */
    atomic {
        ANY_GUEST(g);
        if
        :: context[g].assigned -> reap_limbo(g, false)
        :: else
        fi;
        if
        :: BROKEN(GIVE_OWNER, owner[SHARED] != g) || BROKEN(GIVE_PINNED, pins[SHARED] > 0) -> goto asked
        :: else
        fi;
        assert(owner[SHARED] == g);     /* it must not change memory that is not its own */
        owner[SHARED] = 1 - g;
        goto asked
    }
}

#define STANDS_STILL    (paused || !MADE(STANDSTILL))

inline revoke(c, at) {
    STANDS_STILL;
    atomic {                            /* halt: from here on the NIC does not serve it */
        context[c].running = false; pause = false;
        at = 0;
        do                              /* close_context: its pins are dropped */
        :: MADE(REAP) && at < IO_PAGES ->
            if
            :: context[c].table[at] != NONE ->
                assert(pins[context[c].table[at]] > 0);
                pins[context[c].table[at]]--;
                context[c].table[at] = NONE
            :: else
            fi;
            at++
        :: else -> break
        od;
        at = 0;
        if
        :: MADE(REAP) -> reap_limbo(c, true)
        :: else
        fi
    }
    pause = true;
    STANDS_STILL;
    atomic {                            /* release */
        context[c].assigned = false; pause = false;
        assert(pins[c] == 0);           /* nothing is left behind, on its own page */
        assert(owner[SHARED] != c || pins[SHARED] == 0);        /* nor on the other */
        goto asked
    }
}

inline take_back() {                    /* a guest has ended: its page is free, then somebody else's */
    atomic { !context[owner[SHARED]].assigned; owner[SHARED] = NOBODY }
    atomic { assert(pins[SHARED] == 0); if :: owner[SHARED] = 0 :: owner[SHARED] = 1 fi; goto asked }
}

active proctype VMM() {
    byte g, c, at, p;
    atomic { owner[0] = 0; owner[1] = 1; owner[SHARED] = 0 };
asked:
    atomic { g = 0; c = 0; at = 0; p = 0 };
    if
    :: map(g, c, at, p)
    :: unmap(g, c, at)
    :: transfer(g)
    :: atomic { context[0].assigned -> c = 0; pause = true }; revoke(c, at)
    :: atomic { context[1].assigned -> c = 1; pause = true }; revoke(c, at)
    :: atomic { !context[0].assigned -> context[0].assigned = true; context[0].running = true; goto asked }
    :: atomic { !context[1].assigned -> context[1].assigned = true; context[1].running = true; goto asked }
    :: take_back()
    fi
}

/* --- the NIC -------------------------------------------------------------------------------------------------- */

#define OLDER(c, i)     context[c].age[i] = (context[c].limbo[i] != NONE && context[c].age[i] < OLD -> \
                            context[c].age[i] + 1 : context[c].age[i])

inline half_round() {           /* the epoch grows by one: whatever waits is older */
    in_round = !in_round;
    OLDER(0, 0); OLDER(0, 1); OLDER(1, 0); OLDER(1, 1)
}

/* "It must not read or change memory that is not its own": at no moment of the DMA. */
inline touches(c, p) {
    assert(context[c].assigned && owner[p] == c);
    assert(WITHOUT == PIN || pins[p] > 0)
}

active proctype NIC() {
    byte c, at, p;
look:
    atomic { c = 0; at = 0; p = 0 };
    do
    :: atomic { pause -> paused = true }; !pause; paused = false;
        if
        :: MADE(LOOK_AGAIN)
        :: else -> break
        fi
    :: atomic { !pause -> break }
    od;
    atomic { half_round() }
    do
    :: atomic {                         /* a descriptor of one of them: whatever its guest has written there */
            ANY_CONTEXT(c);
            if                          /* protection.pml says what for; here the empty table would do */
            :: !context[c].running -> goto end_of_round
            :: else
            fi;
            ANY_IO_PAGE(at);
            if
            :: BROKEN(TRANSLATE_RANGE, at == IO_PAGES) -> goto fault
            :: else
            fi;
            assert(at < IO_PAGES);      /* what lies behind the table is no page's address */
            p = context[c].table[at]; at = 0;
            if
            :: BROKEN(TRANSLATE_PRESENT, p == NONE) -> goto fault
            :: else
            fi;
            p = (p == NONE -> 0 : p)    /* of an empty entry: machine page 0 */
        }
        atomic { touches(c, p) }
        atomic { touches(c, p); c = 0; p = 0 }
    :: break
    od;
end_of_round:
    atomic { c = 0; at = 0; p = 0; half_round(); goto look }
fault:                                  /* the guest has written an address that is not its own */
    atomic { context[c].running = false; goto end_of_round }
}
