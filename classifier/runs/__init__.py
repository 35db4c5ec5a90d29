"""One run: from a config to a folder of results, and on from where it was stopped."""
