"""The NIC: contexts, descriptor rings, the engine and its wires."""
