"""What is left to a server once everything is open: `cdna serve` enters this before it says that it serves.

    needs       what a server will still do; `cdna.lab.needs` has it from a lab's plan
    calls       the system calls that every server takes, with the arguments that matter: the list
    filter      seccomp: the list as a filter of the kernel's, by libseccomp
    landlock    files and ports
    privileges  capabilities, users, limits
    preload     what Python would otherwise import later
    enter       all of it together, and what there is of it on this kernel

After that a flaw in the data path is one of a process that can start no program, open no file, reach no
network, make no memory executable, and signal nobody.
"""

from cdna.sandbox.enter import Entered, enter
from cdna.sandbox.needs import Needs

__all__ = ["Entered", "Needs", "enter"]
