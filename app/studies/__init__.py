"""Studies: systems, prompts, clips, gold pairs, and how they get in."""
