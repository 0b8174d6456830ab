"""What the parts of Wisp agree on: resource types, routes, names, event patterns and the CloudEvents codec."""
