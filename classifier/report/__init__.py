"""Plots, pages and texts made from the numbers of a run: all can be made again from its files."""
