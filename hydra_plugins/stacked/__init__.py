"""The plugin that makes the stacked launcher known to Hydra."""
