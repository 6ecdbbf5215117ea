"""Real virtual machines: QEMU guests with a stock Debian kernel, under TCG, without network or disk.

image      the initrd: modules of an installed kernel, busybox, a few programs     cpio   its archive format
machine    a QEMU that is started, told what to do, and never left behind          agent  commands inside
network    its network devices: vhost-user (`cdna serve`) or a tap of the kernel   qmp    QEMU's monitor
"""
