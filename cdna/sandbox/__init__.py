"""What is left to a server once everything is open: `cdna serve` enters this before it says that it serves.

    needs       what this server will still do, from its plan
    calls       the system calls that it takes, with the arguments that matter: the list
    filter      seccomp: the list as a filter of the kernel's, by libseccomp
    landlock    files and ports
    privileges  capabilities, users, limits
    preload     what Python would otherwise import later
    enter       all of it together, and what there is of it on this kernel
    derive      the list beside what the tests do (python -m cdna.sandbox.derive)

After that a flaw in the data path is one of a process that can start no program, open no file, reach no
network, make no memory executable, and signal nobody.
"""

from cdna.sandbox.enter import Entered, enter
from cdna.sandbox.needs import Needs, needs_of

__all__ = ["Entered", "Needs", "enter", "needs_of"]
