"""The kinds of guests that can share the NIC of a lab, a file a kind.

    base         what every kind has: a plan, a context, counters; and what they share
    namespace    a Linux network namespace on the native driver, which the pump drives
    vhost_user   a virtual machine or a DPDK program behind a socket
    synthetic    a generator or a sink of this process, on the native driver

`Lab` makes a member by the kind of its plan and knows nothing else about it.
"""
