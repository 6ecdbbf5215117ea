"""The generator: closed loop, so that nothing is lost for want of buffers and what is counted is goodput.

A frame of a flow is made when all of this holds: fewer than `window` of the flow's frames are under way, the
context that will receive it has posted enough descriptors, the flow has not reached the limit, and the line
has time. Flows take turns, one frame a turn. It runs in the NIC's thread, as wire_t.rx, so it may read the
NIC's rings; the receivers' acknowledgements are read atomically.
"""
# build: unfuzzed

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.cpu cimport load_u32, load_u64, store_u32, store_u64
from cdna.nic.context cimport context_t
from cdna.nic.device cimport Nic
from cdna.nic.frame cimport BURST, frame_t
from cdna.nic.line cimport line_look, line_set, line_take
from cdna.nic.traffic cimport frame_write, frame_write_payload, load_length
from cdna.nic.wire cimport cycles_per_second, is_down
from cdna.nic.wire_contract cimport wire_t

from cdna.errors import ConfigError
from cdna.nic.null_wire import check_rate
from cdna.nic.traffic import mac_word

cdef enum:
    MAX_FLOWS = 65536


cdef inline bint window_open(const generator_t *g, flow_t *flow) noexcept nogil:
    if g.limit != 0 and flow.sent >= g.limit:
        return False
    if flow.sent - flow.acked < flow.window:
        return True
    flow.acked = load_u64(flow.ack)     # only now: its cache line belongs to the receiver's core
    return flow.sent - flow.acked < flow.window


cdef inline bint take_credit(generator_t *g, const flow_t *flow, uint32_t length) noexcept nogil:
    """Whether the flow's context has descriptors for the frame that this burst has not promised yet."""
    cdef credit_t *credit = &g.credit[flow.credit]
    cdef context_t *context
    cdef uint32_t buffers
    if g.nic == NULL:
        return True
    context = &g.nic.context[credit.context]
    buffers = 1 if length <= flow.buffer_size else (length + flow.buffer_size - 1) // flow.buffer_size
    if credit.burst != g.bursts:
        credit.burst = g.bursts
        credit.spent = 0
    if context.rx.producer - context.rx.consumer < credit.spent + buffers:
        return False
    credit.spent += buffers
    return True


cdef inline flow_t *next_flow(generator_t *g, uint32_t flows) noexcept nogil:
    """The flow whose turn it is and that may send, its credit taken; NULL if none may."""
    cdef flow_t *flow
    cdef uint32_t _i
    for _i in range(flows):
        flow = &g.flow[g.next]
        g.next += 1
        if g.next >= flows:
            g.next = 0
        if window_open(g, flow) and take_credit(g, flow, load_length(g.load, flow.sent)):
            return flow
    return NULL


cdef int generator_rx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef generator_t *g = <generator_t *>self.state
    cdef uint32_t flows = load_u32(&g.flows)
    cdef flow_t *flow
    cdef uint8_t *slot
    cdef int i
    if is_down(self) or load_u32(&g.stop) or flows == 0:
        return 0
    if n > BURST:
        n = BURST
    g.bursts += 1
    line_look(&g.line)
    for i in range(n):
        if g.line.bytes_per_cycle != 0 and g.line.credit < 0:
            return i
        flow = next_flow(g, flows)
        if flow == NULL:
            return i
        slot = g.slot + i * g.slot_stride
        frame[i].data = slot
        frame[i].has_offload = 0
        frame[i].len = frame_write(slot, g.load, flow.id, flow.sent, flow.dst_mac, flow.src_mac)
        frame[i].timestamp_ns = 0
        if g.load.payload != NULL and not g.load.verify:
            # a capture's bytes are sent also where nobody checks them: they are the load
            frame_write_payload(slot, g.load, flow.id, flow.sent)
        line_take(&g.line, frame[i].len)
        store_u64(&flow.sent, flow.sent + 1)
    return n


cdef class GeneratorWire(NullWire):
    """A null wire that also receives: flows of frames of `load`, as fast as their receivers allow.

    limit: frames a flow; 0: until stopped. max_flows: how many can be added. check: the load that the guests
    send, to be checked as NullWire does for `check_flows` flows. line_rate: bits a second, each way.
    """

    def __cinit__(self, *args, **kwargs):
        self.generator = <generator_t *>self.share(sizeof(generator_t))
        self.sink = &self.generator.sink

    def __init__(self, load, *, max_flows=64, limit=0, check=None, check_flows=0, line_rate=None):
        if not 1 <= max_flows <= MAX_FLOWS:
            raise ConfigError(f"{max_flows} flows in a generator: give 1 to {<int>MAX_FLOWS}")
        super().__init__(check, flows=check_flows, line_rate=line_rate)
        self.name = "generator"
        self.load = load
        cdef generator_t *g = self.generator
        g.load = self.load.c
        g.max_flows = max_flows
        g.flow = <flow_t *>self.share(max_flows * sizeof(flow_t))
        g.credit = <credit_t *>self.share(max_flows * sizeof(credit_t))
        # An odd number of cache lines, so that the slots' headers lie in different sets of the cache.
        g.slot_stride = (g.load.max_length + 63) // 64 * 64 | 64
        g.slot = <uint8_t *>self.share(BURST * g.slot_stride)
        self.limit = limit
        line_set(&g.line, check_rate(line_rate), cycles_per_second())
        self._fill_slots()
        self.c.rx = generator_rx

    @property
    def needs_poll(self):
        """True: a flow goes on whenever its receiver allows."""
        return True

    def _fill_slots(self):
        cdef uint32_t i
        for i in range(BURST * self.generator.slot_stride):
            self.generator.slot[i] = <uint8_t>i

    def follow(self, Nic nic):
        """From now on makes a frame only if the context that will receive it has descriptors for it.

        The NIC is the one whose wire this is. Raises ConfigError if it lacks the context of a flow.
        """
        cdef uint32_t i
        for i in range(self.generator.credits):
            check_context(nic, self.generator.credit[i].context)
        self._nic = nic
        self.generator.nic = nic.c

    cdef void set_ack(self, uint32_t flow, const uint64_t *ack) noexcept:
        self.generator.flow[flow].ack = ack

    def add_flow(self, dst_mac, src_mac, *, window, context=0, buffer_size=2048, flow=None):
        """Adds a flow and returns its number, which is also its index here.

        dst_mac, src_mac: six bytes each. window: frames under way at most.
        context: index of the context that will receive the frames, whose descriptors are looked at, and
        buffer_size the bytes of each buffer posted there. flow: the id in the stamp; its number by default.
        """
        cdef generator_t *g = self.generator
        cdef uint32_t number = g.flows
        cdef flow_t *f
        if number == g.max_flows:
            raise ConfigError(f"a flow more than max_flows={g.max_flows} of this generator")
        if window < 1 or buffer_size < 1:
            raise ConfigError(f"a window of {window} frames, buffers of {buffer_size} bytes: give 1 or more")
        if self._nic is not None:
            check_context(self._nic, context)
        f = &g.flow[number]
        f.dst_mac = mac_word(dst_mac)
        f.src_mac = mac_word(src_mac)
        f.window = window
        f.buffer_size = buffer_size
        f.id = number if flow is None else flow
        f.credit = self._credit_of(context)
        f.own_ack = f.sent = f.acked = 0
        f.ack = &f.own_ack
        store_u32(&g.flows, number + 1)     # the NIC may be running
        return number

    cdef uint32_t _credit_of(self, uint32_t context) noexcept:
        cdef generator_t *g = self.generator
        cdef uint32_t i
        for i in range(g.credits):
            if g.credit[i].context == context:
                return i
        g.credit[g.credits].context = context
        g.credits += 1
        return g.credits - 1

    def _flow(self, uint32_t flow):
        if flow >= self.generator.flows:
            raise ConfigError(f"no flow {flow}: this generator has {self.generator.flows}")
        return flow

    def sent(self, flow):
        """Frames of a flow so far."""
        cdef uint32_t number = self._flow(flow)
        return load_u64(&self.generator.flow[number].sent)

    @property
    def limit(self):
        """Frames a flow; 0: until stopped."""
        return self.generator.limit

    @limit.setter
    def limit(self, value):
        if value < 0:
            raise ConfigError(f"a limit of {value} frames: give 0 for none, or a positive number")
        self.generator.limit = value

    @property
    def done(self):
        """Whether every flow has reached the limit."""
        cdef uint32_t i
        for i in range(self.generator.flows):
            if self.generator.limit == 0 or load_u64(&self.generator.flow[i].sent) < self.generator.limit:
                return False
        return True

    def stop(self):
        """Makes no more frames, so that what is under way can drain."""
        store_u32(&self.generator.stop, 1)

    def start(self):
        """Goes on after stop()."""
        store_u32(&self.generator.stop, 0)


def check_context(Nic nic, context):
    """Raises ConfigError unless the NIC has a context of this index."""
    if not 0 <= context < nic.contexts:
        raise ConfigError(f"context {context} of a flow: this NIC has contexts 0 to {nic.contexts - 1}")
