"""A context begins and ends to be served; the engine stands still meanwhile (`Nic.quiesced`)."""

from libc.stdint cimport uint32_t

from cdna.abi cimport CONTEXT_RUNNING
from cdna.cpu cimport store_u32
from cdna.nic.context cimport context_t, nic_t
from cdna.nic.learn cimport forget_learned
from cdna.nic.ring cimport clear_bit, set_bit, test_bit


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
        context.promiscuous = 0
    if nic.tso_context == context:
        nic.tso_context = NULL
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
