"""Xen 3's software bridging as a path: netfront, netback and a learning bridge in the driver domain."""

from cdna.compare.path import ComparisonPath, Look, Published, VmSide

PATH = ComparisonPath(
    name="bridge",
    label="bridge",
    title="software bridging",
    looks={
        "": Look("#c2410c", "#ff9a5c", "D"),
        "flip": Look("#c2410c", "#ff9a5c", "D"),
        "copy": Look("#8d2f86", "#e79be0", "X"),
    },
    reading="""Xen 3's software bridging: netfront, grants, netback, a learning bridge and the driver domain's
own driver. It receives by flipping pages or by copying; ratios are to whichever was faster with that number
of guests.""",
    build="cdna.compare.paths.xen3.build:build",
    receives=("flip", "copy"),
    baseline=True,
    help={"receive": "How the bridge hands over a frame. Ratios: the faster."},
    vm=VmSide(
        "cdna.compare.paths.kernel_bridge:BridgeScene",
        "the kernel's bridge",
        "A tap for each guest on the kernel's bridge, which QEMU itself reads and writes.",
    ),
    published=(
        Published("tx", "", 13.7, 42.0, 40.5, 3.8),  # 1674 Mb/s
        Published("rx", "flip", 30.6, 40.0, 29.4, 0.0, instead="copy"),  # 1075 Mb/s
    ),
    published_ratios=(("tx", 2.1), ("rx", 3.3)),
)
