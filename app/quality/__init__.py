"""Whether raters can be believed."""
