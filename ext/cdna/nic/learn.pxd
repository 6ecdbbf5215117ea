"""Addresses behind a guest: a bridge, a macvlan or a changed address of a context that may send foreign ones.

Where `anti_spoof` is off, a source address that is no context's own is learned, with its VLAN, as a bridge
learns it (IEEE 802.1Q, 8.7 and 8.8): frames for it go to that context from then on. Guests are hostile, so

* a context's own address comes first: what is learned is looked up only where that finds nothing, and never
  is an address of `own_table` in that VLAN;
* each context has LEARNED entries and takes none of another's; when all are in use, one that is too old is
  replaced, or the address is not learned (`tx_unlearned`). Either costs a look at one entry;
* an address goes to another context only after it was silent for `learn_hold`. The wire gets it at once, and
  keeps it for as long: a guest does not draw to itself what is talking outside.

The table is sets of WAYS entries, the set by a secret multiplier: a guest cannot aim at a set. It has four
times as many entries as all contexts together can use; an address whose set is full is not learned.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.checks cimport CHECK_LEARN_HOLD, CHECK_LEARN_MANY, CHECK_LEARN_OWN, broken
from cdna.cpu cimport unlikely
from cdna.nic.context cimport context_t
from cdna.nic.demux cimport MULTICAST_BIT, admits, find_in, find_mac, header_t
from cdna.nic.mac_table cimport LEARNED, address_key, learned_t
from cdna.nic.state cimport nic_t

cdef enum:
    WAYS = 4                    # entries in which an address may be
    LEARNED_SPARE = 4           # entries of the table for each that can be in use


cdef inline learned_t *learned_set(const nic_t *nic, uint64_t key) noexcept nogil:
    """The first of the WAYS entries in which this address may be."""
    return &nic.learned[WAYS * ((key * nic.learn_secret) >> nic.learn_shift)]


cdef inline learned_t *find_entry(const nic_t *nic, uint64_t key) noexcept nogil:
    """The entry of an address, however old, or NULL."""
    cdef learned_t *entry = learned_set(nic, key)
    cdef int i
    for i in range(WAYS):
        if entry[i].key == key:
            return &entry[i]
    return NULL


cdef inline context_t *find_learned(const nic_t *nic, const header_t *header) noexcept nogil:
    """The context behind which the destination was learned, or NULL."""
    cdef const learned_t *entry = find_entry(nic, address_key(header.destination, header.vid))
    cdef context_t *context
    if entry == NULL or entry.on_wire or nic.now - entry.seen > nic.learn_age:
        return NULL
    context = &nic.context[entry.context]
    return context if admits(context, header) else NULL


cdef inline context_t *find_receiver(const nic_t *nic, const header_t *header) noexcept nogil:
    """The context that a unicast frame is for, or NULL: by its own address, or by one that was learned."""
    cdef context_t *context = find_mac(nic, header.destination, header.vid)
    if context == NULL and unlikely(nic.n_learned):
        return find_learned(nic, header)
    return context


cdef inline bint is_behind(const context_t *context, const context_t *sender,
                           const header_t *header) noexcept nogil:
    """Whether a frame would go back to where it came from: its destination was learned behind its sender."""
    return context == sender and header.destination != context.mac


# --- learning ---------------------------------------------------------------------------------------------

cdef inline void forget_entry(nic_t *nic, learned_t *entry) noexcept nogil:
    """Empties an entry; the last one of its context takes its position."""
    cdef context_t *context = &nic.context[entry.context]
    cdef uint32_t last = context.learned_at[context.learned - 1]
    context.learned_at[entry.position] = last
    nic.learned[last].position = entry.position
    context.learned -= 1
    nic.n_learned -= 1
    entry.key = 0


cdef inline void forget_learned(nic_t *nic, context_t *context) noexcept nogil:
    """Forgets what was learned behind a context."""
    while context.learned:
        forget_entry(nic, &nic.learned[context.learned_at[context.learned - 1]])


cdef inline void forget_own(nic_t *nic) noexcept nogil:
    """Forgets the addresses that are a context's own by now, in the VLAN where they were learned."""
    cdef learned_t *entry
    cdef context_t *context
    cdef uint32_t i, at
    for i in range(nic.contexts):
        context = &nic.context[i]
        at = context.learned
        while at:
            at -= 1
            entry = &nic.learned[context.learned_at[at]]
            if find_in(nic, nic.own_table, entry.key) != NULL:
                forget_entry(nic, entry)


cdef inline bint has_room(nic_t *nic, context_t *context) noexcept nogil:
    """Whether the context may have another entry, perhaps in place of one that is too old."""
    cdef learned_t *oldest
    if not broken(CHECK_LEARN_MANY, context.learned >= LEARNED):
        return True
    context.learn_hand = (context.learn_hand + 1) % <uint32_t>LEARNED
    oldest = &nic.learned[context.learned_at[context.learn_hand]]
    if nic.now - oldest.seen <= nic.learn_age:
        return False
    forget_entry(nic, oldest)
    return True


cdef inline learned_t *free_entry(nic_t *nic, uint64_t key) noexcept nogil:
    """An entry of the set that is empty, or whose address is too old; NULL: there is none."""
    cdef learned_t *entry = learned_set(nic, key)
    cdef int i
    for i in range(WAYS):
        if entry[i].key == 0:
            return &entry[i]
    for i in range(WAYS):
        if nic.now - entry[i].seen > nic.learn_age:
            forget_entry(nic, &entry[i])
            return &entry[i]
    return NULL


cdef inline bint learn_new(nic_t *nic, context_t *context, uint64_t key, uint64_t mac) noexcept nogil:
    cdef learned_t *entry
    if mac & MULTICAST_BIT or mac == 0 or not has_room(nic, context) or \
            broken(CHECK_LEARN_OWN, find_in(nic, nic.own_table, key) != NULL):
        return False
    entry = free_entry(nic, key)
    if entry == NULL:
        return False
    entry.key = key
    entry.seen = nic.now
    entry.context = context.index
    entry.on_wire = 0
    entry.position = context.learned
    context.learned_at[context.learned] = <uint32_t>(entry - nic.learned)
    context.learned += 1
    nic.n_learned += 1
    return True


cdef inline bint learn(nic_t *nic, context_t *context, const header_t *header) noexcept nogil:
    """Notes that a foreign source address is behind a context that may send such; returns whether it was."""
    cdef uint64_t key = address_key(header.source, header.vid)
    cdef learned_t *entry = find_entry(nic, key)
    if entry != NULL:
        if entry.context == context.index and not entry.on_wire:
            entry.seen = nic.now
            return True
        if broken(CHECK_LEARN_HOLD, nic.now - entry.seen <= nic.learn_hold):
            return False
        forget_entry(nic, entry)
    return learn_new(nic, context, key, header.source)


cdef inline void seen_on_wire(nic_t *nic, const header_t *header) noexcept nogil:
    """Notes that a source address came in from the wire: if it was learned, it is there now."""
    cdef learned_t *entry = find_entry(nic, address_key(header.source, header.vid))
    if entry != NULL:
        entry.on_wire = 1
        entry.seen = nic.now
