"""vhost-user frontends of DPDK on our backend and on DPDK's, under the same loads, in turns.

testpmd     one dpdk-testpmd, driven at its prompt     hugepages   memory for them
backends    what serves the sockets                    frontends   what attaches to them
bridge      taps on a kernel bridge instead            loads       who sends what to whom
verify      whether frames come through as they went in
"""
