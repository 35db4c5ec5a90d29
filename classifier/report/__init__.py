"""Plots and texts made from the numbers of a run: all can be made again from its files."""

import logging

# Without a home it tells where its cache stands, at every start and in every process that draws.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
