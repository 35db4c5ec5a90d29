"""Names of pictures of a sweep, and limits that plots and pages share."""

SWEEP_PLOT, PATH = "sweep.png", "reg_path.png"  # of a sweep; the latter of one over the penalty
