"""What a guest's image is made of, and what is said when something is missing."""

import os
from pathlib import Path

import pytest

from cdna.errors import ResourceError
from cdna.vm import image


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing; its kernels are looked for in boot and modules."""
    for name in ("boot", "modules", "bin"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(image, "BOOT", tmp_path / "boot")
    monkeypatch.setattr(image, "MODULES", tmp_path / "modules")
    monkeypatch.setattr(image, "SEARCH", str(tmp_path / "bin"))
    return tmp_path


def add_kernel(place: Path, version: str, dependencies: str = "") -> None:
    (place / "boot" / f"vmlinuz-{version}").write_bytes(b"kernel")
    modules = place / "modules" / version
    modules.mkdir()
    (modules / "modules.dep").write_text(dependencies)


def test_what_is_missing_is_named_with_its_package(installed: Path) -> None:
    said = image.missing()
    assert "qemu-system-x86_64 (qemu-system-x86)" in said
    assert "busybox (busybox-static)" in said
    assert "a kernel (linux-image-cloud-amd64)" in said
    with pytest.raises(ResourceError, match=r"need qemu-system-x86_64 \(qemu-system-x86\).*make peers"):
        image.initrd.__wrapped__()


def test_no_kernel(installed: Path) -> None:
    with pytest.raises(ResourceError, match="linux-image-cloud-amd64"):
        image.kernel()


def test_the_newest_cloud_kernel_is_taken(installed: Path) -> None:
    for version in ("6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "6.12.0-1-amd64"):
        add_kernel(installed, version)
    assert image.kernel().version == "6.1.0-10-cloud-amd64"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_kernel_that_cannot_be_read_is_none(installed: Path) -> None:
    add_kernel(installed, "6.1.0-1-amd64")
    (installed / "boot" / "vmlinuz-6.1.0-1-amd64").chmod(0)
    with pytest.raises(ResourceError):
        image.kernel()


def test_modules_come_after_what_they_need(installed: Path) -> None:
    dependencies = """\
kernel/virtio.ko: kernel/virtio_ring.ko
kernel/virtio_ring.ko:
kernel/virtio_pci.ko.xz: kernel/virtio.ko kernel/virtio_ring.ko
kernel/failover.ko:
kernel/virtio_net.ko: kernel/failover.ko kernel/virtio.ko kernel/virtio_ring.ko
kernel/unrelated.ko:
"""
    add_kernel(installed, "6.1.0-1-amd64", dependencies)
    names = [module.name for module in image._modules(image.kernel().modules)]
    assert names == ["virtio_ring.ko", "virtio.ko", "virtio_pci.ko.xz", "failover.ko", "virtio_net.ko"]
