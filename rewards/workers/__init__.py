"""Original reward packages in environments of their own, spoken to over JSON lines."""
