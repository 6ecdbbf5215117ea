"""What this machine allows, what is slower or missing, and the command that mends it."""

from cdna.doctor.finding import Finding
from cdna.doctor.host import Host
from cdna.doctor.report import CHECKS, examine

__all__ = ["Finding", "Host", "CHECKS", "examine"]
