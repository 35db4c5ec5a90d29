"""The user's own files, of any kind, as a `Dataset`."""
