"""What guests and the VMM say to each other, beside the words of shared memory (abi, virtio)."""
