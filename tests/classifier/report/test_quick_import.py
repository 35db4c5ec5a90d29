import subprocess
import sys

PROGRAM = """
from classifier.report.quick_import import import_matplotlib
import_matplotlib()
from matplotlib import artist, lines
from matplotlib.figure import Figure
assert not lines.Line2D.set.__doc__  # it was imported quickly

class Mine(artist.Artist):
    def set_hatch(self, hatch):
        "Set what a patch is filled with."

assert "hatch" in artist.kwdoc(Mine)
assert "hatch" in Mine.set.__doc__ and "hatch" in Mine.set.__signature__.parameters
assert "hatch" not in artist.Artist.set.__signature__.parameters
line = lines.Line2D([0, 1], [0, 1])
line.set(lw=3, color="red")
assert (line.get_linewidth(), line.get_color()) == (3, "red")
axes = Figure().add_subplot()
axes.grid(alpha=0.25)
axes.plot([0, 1], linewidth=2)
import_matplotlib()
assert "linewidth" in artist.kwdoc(lines.Line2D)
"""


def test_what_is_made_later_is_described_and_everything_can_be_set(repository):
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=repository, check=True)
