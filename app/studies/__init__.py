"""What raters are asked and what they see: studies, clips, gold pairs."""
