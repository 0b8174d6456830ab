"""Source readers: one process per (namespace, connection), in that namespace, with that connection's Secret mounted."""
