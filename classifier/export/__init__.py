"""A trained model in the formats of other programs: python -m classifier.export RUN --to FORMAT."""
