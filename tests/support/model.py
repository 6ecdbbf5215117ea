"""The reference model that tests and `cdna fuzz` share is the package's own."""

from cdna.fuzz.model import BROADCAST, PAGE, WORD, Model, ModelContext, ModelRing

__all__ = ["BROADCAST", "PAGE", "WORD", "Model", "ModelContext", "ModelRing"]
