"""Names of the cookies."""

RATER_COOKIE = "arena_session"
ADMIN_COOKIE = "arena_admin"
