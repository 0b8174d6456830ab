"""Code archives: the Job that fetches one from the user's S3, and the store that keeps what was verified."""
