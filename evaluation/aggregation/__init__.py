"""From scores to numbers that can be believed: intervals, comparisons, gates."""
