"""The same virtual machines on each path: `cdna compare --guest vm`.

plan   what is measured     scene   two guests; a path connects them     loads   what one does to the other
cpu    host CPU by who used it     runner   the turns     result   what came of it
"""
