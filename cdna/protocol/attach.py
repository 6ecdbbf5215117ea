"""The first message of a guest in another process: JSON text of at most REQUEST_BYTES.

{"version": 1, "name": "web", "memory": 1052672, "settings": {"tx_ring": 256, "mac": "02:..."}}
"""

VERSION = 1
REQUEST_BYTES = 4096
