"""Rings of virtio: a context whose guest has a virtio-net device (virtio 1.2, 5.1)."""
