"""The command line: what a person types, and what is printed of a mistake in it."""
