"""What happens on a change: one reconcile function for each kind, level-triggered, that may run at any time."""
