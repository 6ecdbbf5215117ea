"""What this machine allows, what is slower or missing, and the command that mends it."""

from cdna.doctor.report import CHECKS, examine
from cdna.extend.finding import Finding
from cdna.extend.host import Host

__all__ = ["Finding", "Host", "CHECKS", "examine"]
