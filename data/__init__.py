"""Examples, from wherever they come to what training reads: one `Dataset` from any source."""
