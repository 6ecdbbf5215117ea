"""How many files this process has open, without those that only garbage still holds."""

import gc
import os


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
