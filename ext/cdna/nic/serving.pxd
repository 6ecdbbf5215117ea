"""A context begins and ends to be served.

`stop_context` is the engine's own, in the middle of a round; for the others it stands still (`Nic.quiesced`).
"""

from libc.stdint cimport uint32_t

from cdna.abi cimport CONTEXT_FAULTED, CONTEXT_RUNNING
from cdna.cpu cimport store_u32
from cdna.nic.bits cimport clear_bit, set_bit, test_bit
from cdna.nic.context cimport context_t
from cdna.nic.learn cimport forget_learned
from cdna.nic.state cimport nic_t


cdef inline void set_state(nic_t *nic, context_t *context, uint32_t state) noexcept nogil:
    """For the NIC, its guest and the VMM."""
    context.state = state
    context.page.state = state
    store_u32(&nic.progress[context.index].state, state)


cdef inline void begin_serving(nic_t *nic, context_t *context) noexcept nogil:
    """A context that does not run; its state is set."""
    set_bit(nic.running, context.index)
    nic.n_running += 1
    if context.polled and not test_bit(nic.polled, context.index):
        set_bit(nic.polled, context.index)
        nic.n_polled += 1


cdef inline void end_serving(nic_t *nic, context_t *context) noexcept nogil:
    """In whatever state it is; nothing that it had posted is touched again."""
    if context.state == CONTEXT_RUNNING:
        nic.n_running -= 1
    if test_bit(nic.polled, context.index):
        nic.n_polled -= 1
    if context.promiscuous:
        nic.n_promiscuous -= 1
        clear_bit(nic.promiscuous, context.index)
        context.promiscuous = 0
    if nic.tso_context == context:
        nic.tso_context = NULL
    if nic.flood.sender == context:
        nic.flood.sender = NULL
    forget_learned(nic, context)
    # A doorbell that is still set is harmless: the NIC ignores those of contexts that do not run.
    clear_bit(nic.running, context.index)
    clear_bit(nic.polled, context.index)
    clear_bit(nic.tx_active, context.index)
    clear_bit(nic.dirty, context.index)
    clear_bit(nic.unreported, context.index)
    clear_bit(nic.updated, context.index)
    clear_bit(nic.enabled, context.index)
    clear_bit(nic.virtio, context.index)
    clear_bit(nic.virtio_used, context.index)
    clear_bit(nic.debtors, context.index)


cdef inline void stop_context(nic_t *nic, context_t *context, uint32_t fault, uint32_t ring, uint32_t index,
                              uint32_t expected, uint32_t found) noexcept nogil:
    """Stops a context with a reason; the others go on (section 3.3). The VMM hears of it by interrupt."""
    context.fault = fault
    context.fault_ring = ring
    context.fault_index = index
    context.fault_expected = expected
    context.fault_found = found
    context.stats.faults += 1
    nic.faults += 1
    nic.n_running -= 1
    store_u32(&context.state, CONTEXT_FAULTED)      # after the reason: the VMM reads it in another thread
    clear_bit(nic.running, context.index)
    clear_bit(nic.tx_active, context.index)
    set_bit(nic.dirty, context.index)
    set_bit(nic.enabled, context.index)     # the VMM wants to know, whatever the guest masked
    store_u32(&context.page.fault, fault)
    store_u32(&context.page.state, CONTEXT_FAULTED)
    store_u32(&nic.progress[context.index].state, CONTEXT_FAULTED)
