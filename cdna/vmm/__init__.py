"""The VMM: validates the memory that guests name, and turns interrupts into virtual ones."""
