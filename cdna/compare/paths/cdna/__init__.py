"""CDNA as a path: each guest has a context of the NIC, which it drives itself."""

from cdna.base.units import PROTECTIONS
from cdna.compare.path import ComparisonPath, Look, Published, VmSide

PATH = ComparisonPath(
    name="cdna",
    label="CDNA",
    title="CDNA",
    looks={
        "validated": Look("#1f5fc4", "#7db0ff", "o"),
        "none": Look("#0b8377", "#4fd0bd", "s"),
        "iommu:single-use": Look("#8a6a00", "#e5c454", "v", "iommu single-use"),
        "iommu:shared": Look("#4a7a1f", "#a3d26c", "^", "iommu shared"),
        "iommu:persistent": Look("#b0274a", "#ff8fa8", "<", "iommu persistent"),
        "iommu:direct-map": Look("#5b6675", "#b4bfcc", ">", "iommu direct-map"),
    },
    reading="""Each guest has a context of the NIC and no driver domain. Validated, none and iommu are its DMA
protection: the VMM validates, pins and stamps every descriptor; nothing checks it; or the NIC consults a page
table for each context.""",
    build="cdna.compare.paths.cdna.build:build",
    protections=PROTECTIONS,
    help={"protection": f"CDNA's DMA protection: {', '.join(PROTECTIONS)}."},
    vm=VmSide(
        "cdna.compare.paths.cdna.vm:CdnaScene",
        "CDNA",
        "A context of one NIC for each guest, over vhost-user.",
    ),
    published=(
        Published("tx", "validated", 10.2, 0.5, 38.5, 50.8),  # 1867 Mb/s
        Published("tx", "none", 1.9, 0.4, 37.3, 60.4),  # 1867 Mb/s
        Published("rx", "validated", 9.9, 0.5, 48.7, 40.9),  # 1874 Mb/s
        Published("rx", "none", 1.9, 0.4, 47.5, 50.2),  # 1874 Mb/s
    ),
)
