"""The same virtual machines on CDNA and on the kernel's bridge: `cdna compare --guest vm`.

plan   what is measured     scene   two guests, and what connects them     loads   what one does to the other
cpu    host CPU by who used it     runner   the turns     result   what came of it
"""
