"""Xen's public interface. The members are those of public.pxd, which no Python code of this package names."""

import enum

ReservedDomid: type[enum.IntFlag]
GrantFlag: type[enum.IntFlag]
GrantOp: type[enum.IntFlag]
GrantMap: type[enum.IntFlag]
GrantCopy: type[enum.IntFlag]
GrantStatus: type[enum.IntFlag]
EvtchnState: type[enum.IntFlag]
Errno: type[enum.IntFlag]
Hypercall: type[enum.IntFlag]
MemoryOp: type[enum.IntFlag]
MmuUpdate: type[enum.IntFlag]
EvtchnOp: type[enum.IntFlag]
NetifFlag: type[enum.IntFlag]
NetifStatus: type[enum.IntFlag]

def sizes() -> dict[str, int]: ...
