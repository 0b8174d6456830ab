"""The command for people: deploy, call and watch functions on a cluster with Wisp."""
