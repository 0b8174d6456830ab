"""Who may call the function: bearer tokens, checked before a request reaches it (docs/decisions/0013)."""
