/* The reference for short frames: a bare single-producer ring between two threads on two cores.
 *
 * What a native context cannot do without and nothing else: 16-byte descriptors; on the producer's side the
 * frame's first and last word written, an owner check and a pin; on the consumer's a sequence check, a
 * prefetch and one memcpy into a packet buffer. Plain C, no NIC around it.
 */
#ifndef CDNA_BARE_RING_H
#define CDNA_BARE_RING_H

#include <pthread.h>
#include "cpu.h"

#define BARE_RING_SLOTS 1024u
#define BARE_PACKET_BUFFER (4u << 20)

struct bare_desc { uint64_t addr; uint16_t len; uint16_t flags; uint32_t seq; };
struct bare_page { uint32_t owner, pins; };

struct bare_ring {
    struct bare_desc desc[BARE_RING_SLOTS];
    uint32_t producer __attribute__((aligned(128)));
    uint32_t consumer __attribute__((aligned(128)));
    uint32_t stop __attribute__((aligned(128)));
    uint32_t bad;
    uint8_t *frames, *packet;       /* the guest's buffers; the NIC's packet buffer */
    struct bare_page *page;
    uint32_t size, stride;
    int cpu;
    pthread_t thread;
};

static inline void *bare_ring_consume(void *arg) {
    struct bare_ring *r = (struct bare_ring *)arg;
    uint32_t consumer = 0, at = 0;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(r->cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
    while (!CDNA_LOAD(&r->stop)) {
        uint32_t producer = CDNA_LOAD(&r->producer), end = consumer + 64;
        if (producer == consumer) {
            cpu_relax();
            continue;
        }
        if (producer - consumer < 64)
            end = producer;
        for (; consumer != end; consumer++) {
            struct bare_desc d = r->desc[consumer % BARE_RING_SLOTS];
            prefetch_read(r->frames + r->desc[(consumer + 4) % BARE_RING_SLOTS].addr);
            r->bad += d.seq != consumer;
            if (BARE_PACKET_BUFFER - at < d.len)
                at = 0;
            copy_bytes(r->packet + at, r->frames + d.addr, d.len);
            at += (d.len + 63u) & ~63u;
        }
        CDNA_STORE(&r->consumer, consumer);
    }
    return NULL;
}

/* Runs the producer in the calling thread until `until` (cycles); returns frames moved. */
static inline uint64_t bare_ring_run(struct bare_ring *r, uint64_t until) {
    uint32_t producer = 0, reaped = 0;
    uint64_t frames = 0;
    r->producer = r->consumer = r->stop = r->bad = 0;
    if (pthread_create(&r->thread, NULL, bare_ring_consume, r))
        return 0;
    while (cycles() < until) {
        uint32_t consumer = CDNA_LOAD(&r->consumer), n;
        for (; reaped != consumer; reaped++)
            r->page[r->desc[reaped % BARE_RING_SLOTS].addr >> 12].pins--;
        n = BARE_RING_SLOTS - (producer - consumer);
        if (n > 64)
            n = 64;
        for (; n; n--, producer++) {
            uint64_t addr = (uint64_t)(producer % BARE_RING_SLOTS) * r->stride;
            uint64_t seq = producer;
            if (r->page[addr >> 12].owner != 1)
                continue;
            r->page[addr >> 12].pins++;
            memcpy(r->frames + addr, &seq, 8);
            memcpy(r->frames + addr + r->size - 8, &seq, 8);
            r->desc[producer % BARE_RING_SLOTS] = (struct bare_desc){addr, (uint16_t)r->size, 1, producer};
        }
        CDNA_STORE(&r->producer, producer);
    }
    frames = CDNA_LOAD(&r->consumer);
    CDNA_STORE(&r->stop, 1);
    pthread_join(r->thread, NULL);
    return r->bad ? 0 : frames;
}

/* Frames in buffers `stride` bytes apart. */
struct frame_pool { uint8_t *base; uint32_t buffers, stride; };

/* memcpy of frames from one pool to another, each gone through in turn, until `until`; returns frames copied. */
static inline uint64_t memcpy_run(struct frame_pool from, struct frame_pool to, uint32_t size, uint64_t until) {
    uint64_t n = 0;
    uint32_t source = 0, target = 0;
    do {            // once at least: the time may be over before it begins
        for (int i = 0; i < 64; i++, n++) {
            copy_bytes(to.base + (uint64_t)target * to.stride, from.base + (uint64_t)source * from.stride, size);
            source = source + 1 == from.buffers ? 0 : source + 1;
            target = target + 1 == to.buffers ? 0 : target + 1;
        }
        compiler_barrier();
    } while (cycles() < until);
    return n;
}

#endif
