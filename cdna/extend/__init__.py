"""What everything that can be added is declared with: wires, kinds of guests (docs/extending.md).

registry   the entries of this package by name, and those of others by entry points
permits    what an entry needs of a server's sandbox: system calls, files, capabilities, modules
finding, host, trial   what `cdna doctor` checks for it
"""
