"""What this machine's network can, beside what wires and guests look for themselves."""

import errno

from cdna.doctor import trials
from cdna.extend.finding import Finding
from cdna.extend.host import Host


def af_xdp(host: Host) -> Finding:
    """What the kernel can; there is no wire for it yet, so there is nothing to mend."""
    meaning = "no wire uses it so far"
    trial = host.trial(trials.af_xdp)
    if trial.works:
        return Finding("AF_XDP", "ok", "opened one", meaning)
    found = {
        errno.EPERM: "no permission",
        errno.EAFNOSUPPORT: "not in this kernel",
    }.get(trial.errno, trial.reason)
    return Finding("AF_XDP", "missing", found, f"{meaning}: nothing is slower")
