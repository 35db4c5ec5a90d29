"""Many runs at once: the stacked launcher, its engines, and the summary of a sweep."""
