"""Names of what a run leaves for its page, and limits that plots and pages share."""

PAGE = "report.html"  # of a run
MISTAKES = "mistakes.npz"  # the images of the most confident mistakes
PLOTS = (  # of every run; where examples are images, TEMPLATES too
    "accuracy_curve.png",
    "confusion_matrix.png",
    "loss_curve.png",
    "reliability_diagram.png",
)
TEMPLATES = "weights.png"
EXAMPLES = "examples.npz"  # of two features: those that a picture shows, and this picture
REGIONS = "decision_regions.png"
SWEEP_PLOT, PATH = "sweep.png", "reg_path.png"  # of a sweep; the latter of one over the penalty
