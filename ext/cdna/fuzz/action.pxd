"""One step of an attack, 16 bytes, as it is made from a seed, fed by a fuzzer, shrunk and replayed.

     0    1       2      3       4          8       16
    +----+-------+------+-------+----------+-------+
    | op | guest | ring | count | argument | seed  |
    +----+-------+------+-------+----------+-------+

Any bytes are a step: each number is taken modulo what there is.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef packed struct action_t:
    uint8_t op
    uint8_t guest               # which attacker
    uint8_t ring
    uint8_t count               # descriptors, or what else there may be several of
    uint32_t argument
    uint64_t seed               # of whatever else the step needs
