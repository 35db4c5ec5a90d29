"""HTML pages, made from the files of runs and sweeps; each is one file."""
