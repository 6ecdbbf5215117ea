"""The campaigns by name. A campaign's module is imported when it is the one that runs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from cdna.errors import ConfigError
from cdna.fuzz.campaign import Campaign


@dataclass(frozen=True)
class Entry:
    """where: "module:class". weight: its share of a core's time. what: a few words for users.

    asked: it runs only where it is asked for by name.
    """

    where: str
    weight: int
    what: str
    asked: bool = False


CAMPAIGNS = {
    "native": Entry("cdna.fuzz.native:NativeCampaign", 8, "descriptors of native rings, in this process"),
    "virtio": Entry("cdna.fuzz.virtio:VirtioCampaign", 6, "split and packed rings in a guest's own memory"),
    "race": Entry("cdna.fuzz.race:RaceCampaign", 3, "threads that rewrite what the engine is reading"),
    "model": Entry("cdna.fuzz.against_model:ModelCampaign", 1, "the engine against its reference model"),
    "process": Entry("cdna.fuzz.process:ProcessCampaign", 1, "hostile guests in other processes"),
    "messages": Entry("cdna.fuzz.messages:MessagesCampaign", 1, "vhost-user messages with descriptors"),
    "time": Entry("cdna.fuzz.slow:TimeCampaign", 1, "guests that slow a neighbour down", asked=True),
}
DEFAULT = tuple(name for name, entry in CAMPAIGNS.items() if not entry.asked)
ATTACK = "attack"  # a class of the user's own, from a file
_OWN = "cdna.fuzz.attack:AttackCampaign"


def campaign_class(name: str) -> type[Campaign]:
    """The class of a campaign. ConfigError: there is no such campaign."""
    if name != ATTACK and name not in CAMPAIGNS:
        raise ConfigError(f"campaign {name!r}: give some of {', '.join(CAMPAIGNS)}")
    module, _, attribute = (_OWN if name == ATTACK else CAMPAIGNS[name].where).partition(":")
    found: type[Campaign] = getattr(import_module(module), attribute)
    return found
