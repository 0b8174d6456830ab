"""The way in over HTTP: bucket notifications become CloudEvents in the log."""
