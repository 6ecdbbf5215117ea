"""Attacks on DMA protection, in campaigns, and who runs them: `cdna fuzz`. See docs/fuzz.md."""
