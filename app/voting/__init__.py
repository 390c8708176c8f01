"""Who is asked what, and what they answered."""
