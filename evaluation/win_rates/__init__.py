"""How often one model wins against another."""
