"""Tables, the one writer, the audit log and migrations."""
