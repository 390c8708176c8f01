"""Sets of clips: which files they are, what is wrong with them, and which belong together."""
