"""The campaign "native": attackers of native rings beside honest neighbours, in this process and one thread.

A campaign is a row of episodes. Each has a machine of its own, made from its seed, and so many steps; so what
one finds is carried out again from its seed and its steps alone.
"""

from __future__ import annotations

from typing import Any

from cdna.fuzz.arena import mac_text
from cdna.fuzz.episodes import EpisodeCampaign
from cdna.fuzz.native_attacks import NativeAttacks, generate
from cdna.fuzz.stage import LOOSE_KIND, LOOSE_VLAN, STRICT_KIND, Stage
from cdna.settings import ContextSettings

OWN_PAGES = 16
RING = 64
MANY = ("01:00:5e:00:00:01",)

# Of each attacker. Those with a VLAN are loose (ext/cdna/fuzz/arena.pxd): the NIC works on their frames.
ATTACKERS: tuple[dict[str, Any], ...] = (
    {"protection": "validated", "multicast": MANY},
    {"protection": "validated", "tx_ring": 16, "rx_ring": 16, "seq_modulus": 32},
    {"protection": "validated", "seq_modulus": 128},
    {"protection": "iommu:direct-map"},
    {"protection": "iommu:single-use", "multicast": MANY},
    {"protection": "iommu:shared"},
    {"protection": "iommu:persistent", "tx_ring": 8, "rx_ring": 8},
    {"protection": "validated", "vlan": LOOSE_VLAN},
    {"protection": "validated", "vlan": LOOSE_VLAN, "vnet_header": True},
    {"protection": "iommu:direct-map", "vlan": LOOSE_VLAN},
    {"protection": "iommu:persistent", "vlan": LOOSE_VLAN, "vnet_header": True},
)


class NativeEpisode:
    """A machine with attackers of native rings. steps: what `generate` makes, or rows of numbers."""

    generate = staticmethod(generate)

    def __init__(self, seed: int) -> None:
        pages = len(ATTACKERS) * (OWN_PAGES + 2)
        self.stage = Stage(pages, len(ATTACKERS))
        try:
            contexts = [self._attacker(i, settings) for i, settings in enumerate(ATTACKERS)]
            self.attacks = NativeAttacks(
                self.stage.machine,
                self.stage.wire,
                self.stage.drivers,
                self.stage.load,
                self.stage.foreign(),
                seed=seed,
                contexts=contexts,
                victim=self.stage.victim.domain,
            )
        except BaseException:
            self.stage.close()
            raise

    def _attacker(self, number: int, settings: dict[str, Any]) -> Any:
        kind = LOOSE_KIND if "vlan" in settings else STRICT_KIND
        guest = self.stage.guest(f"mallory {number}", OWN_PAGES)
        settings = {"tx_ring": RING, "rx_ring": RING, **settings}
        return self.stage.machine.vmm.assign(
            guest, ContextSettings(mac=mac_text(kind, number), remote=True, **settings)
        )

    def close(self) -> None:
        self.stage.close()


class NativeCampaign(EpisodeCampaign):
    name = "native"
    episode = NativeEpisode


__all__ = ["ATTACKERS", "NativeCampaign", "NativeEpisode"]
