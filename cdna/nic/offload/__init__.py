"""Work that a sender leaves to the NIC: checksums, segmentation, and the hash of a flow."""
