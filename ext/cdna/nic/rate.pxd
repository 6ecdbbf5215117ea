"""Rate limits: a token bucket of bytes for each context that has one."""

from libc.stdint cimport uint64_t

from cdna.nic.context cimport context_t


cdef inline void refill_tokens(context_t *context, uint64_t now) noexcept nogil:
    """Adds what has come in since the last call. now: a cycle count."""
    context.tokens += (now - context.tokens_at) * context.tokens_per_cycle
    if context.tokens > context.tokens_max:
        context.tokens = context.tokens_max
    context.tokens_at = now


cdef inline bint has_tokens(const context_t *context) noexcept nogil:
    """Whether its rate lets a context send a frame; what it lacks for a long one, it owes."""
    return not context.rate_limited or context.tokens > 0
