"""HTTP: routes, sessions, security."""
