"""What people write who come from other programs: a row each, with the line that they get."""

import dataclasses
import functools
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from classifier.runs.config import Config, PredictConfig, fields_of
from classifier.runs.hints import choices_of, explain, names_elsewhere, translated
from data.errors import InputError
from data.options import Options

# What is given to train.py, and how the line about it goes on after that.
SLIPS = {
    # Other names of keys.
    "learning_rate=0.1": "the key is lr; write lr=0.1",
    "learning-rate=0.1": "the key is lr; write lr=0.1",
    "learningRate=0.1": "the key is lr; write lr=0.1",
    "learnig_rate=0.1": "there is no such key; did you mean lr?",
    "LR=0.1": "the key is lr; write lr=0.1",
    "learning_rate=adaptive": "the key is lr; it must be auto or a number",
    "max_iter=50": "the key is epochs; write epochs=50",
    "n_epochs=1e3": "the key is epochs; write epochs=1000",
    "random_seed=none": "the key is seed; write seed=0",
    "batchsize=32": "the key is batch_size; write batch_size=32",
    "optimizer.lr=0.1": "the key is lr; write lr=0.1",
    "trainer.max_epochs=3": "the key is epochs; write epochs=3",
    "trainer.gpus=1": "the program runs on the CPU alone; leave it out",
    "patience=5": "the key is early_stopping.patience; write early_stopping.patience=5",
    "k_folds=5": "the key is cv; write cv=5",
    "test_size=0.2": "the key is data.test_fraction; write data.test_fraction=0.2",
    "n_classes=3": "the key is data.n_classes; write data.n_classes=3, with data=blobs",
    "gamma=0.5": "the key is schedule.gamma; write schedule.gamma=0.5, with "
    "schedule=exponential or schedule=step",
    "output_dir=x": "the key is outputs; write outputs=x",
    "solver=saga": "the key is optimizer; write optimizer=lbfgs",
    "solver=foo": "the key is optimizer; it must be one of adam, lbfgs, sgd",
    "scheduler=linear": "the key is schedule; write schedule=cosine",
    "normalise=true": "the key is preprocessing; write preprocessing=standardize",
    "scaler=minmax": "the key is preprocessing; write preprocessing=scale",
    "device=cuda": "the program runs on the CPU alone; leave it out",
    "verbose=1": "write quiet=true, for warnings and mistakes alone, or leave it out",
    "tracker.live=true": "the key is tracker_live; write tracker_live=true",
    "loss=hinge": "the loss is always softmax cross-entropy; leave it out",
    # The penalty, with its factor.
    "weight_decay=1e-4": "the key is reg, half the weight_decay of PyTorch's SGD; write reg=5e-05",
    "alpha=1e-3": "the key is reg, half the alpha of scikit-learn's SGDClassifier; write "
    "reg=0.0005",
    "l2=0.01": "the key is reg, of reg * sum(W ** 2) without a 1/2; write reg=0.01, or where "
    "yours has the 1/2 reg=0.005",
    "C=10": "the key is reg, which is 1 / (2 * C * N) for N training examples: 0.05 / N",
    "C=0": "the key is reg, which is 1 / (2 * C * N) for N training examples; write reg=",
    "C=0.1,1": "the key is reg, which is 1 / (2 * C * N) for N training examples: 5,0.5",
    "penalty=l2": "the penalty is always reg * sum(W ** 2); write reg=VALUE",
    # The data.
    "data=mine.npz": "your own examples are given as data=arrays data.train=mine.npz",
    "data=./mine.npz": "your own examples are given as data=arrays data.train=./m",
    "data=mine.npy": "your own examples are given as data=arrays data.train_X=mine.n",
    "data=mine.csv": "your own examples are given as data=arrays data.train=FILE.npz",
    "data=pictures": "your own examples are given as data=cifar10 data.root=pictures",
    "data=hundred": "your own examples are given as data=cifar100 data.root=hundred",
    "data=folder": "your own examples are given as data=arrays data.train=FILE.npz, or",
    "dataset=mine.npz": "the key is data; write data=arrays data.train=mine.npz",
    "data.train=mine.npz": "there is no such key with this choice of data; add data=arrays",
    "schedule.gamma=0.1": "there is no such key with this choice of schedule; add "
    "schedule=exponential or schedule=step",
    # Values.
    "reg=1e-4,1e-3": "several values are a sweep; add -m",
    "lr=0,1": "several values are a sweep; add -m, or write lr=0.1",
    "lr=fast": "must be auto or a number above 0",
    "lr=none": "must be auto or a number above 0 and at most 1e+30; write lr=auto",
    "epochs=1e3": "must be a whole number at least 1; write epochs=1000",
    "epochs=10.5": "must be a whole number at least 1\n",
    "batch_size=all": "must be a whole number at least 1; optimizer=lbfgs takes all",
    "reg=none": "must be a number at least 0 and at most 1e+15; write reg=0",
    "seed=none": "must be a whole number at least 0; write seed=0",
    "cv=none": "must be a whole number at least 2 and at most 1000 or null; write cv=null",
    "batch_size=0": "must be a whole number at least 1\n",
    "cv=0": "must be a whole number at least 2 and at most 1000 or null; write cv=null\n",
    "batch_size=0,5": "several values are a sweep; add -m\n",
    "n_epochs=0": "the key is epochs; it must be a whole number at least 1\n",
    "logger=wandb": "the key is tracker; it must be one of none, tensorboard, mlflow\n",
    "weight_decay=-1": "the key is reg, half the weight_decay of PyTorch's SGD; write reg=VALUE\n",
    "objective=accuracy": "must be one of val_loss, val_accuracy; did you mean val_accuracy?",
    "optimizer=SGD": "there is no such optimizer; did you mean sgd; choose",
    "optimizer=newton": "there is no such optimizer; did you mean lbfgs; choose",
    "schedule=linear": "there is no such schedule; did you mean cosine; choose",
    "preprocessing=zscore": "there is no such preprocessing; did you mean standardize",
    "early_stopping=true": "must be a group of keys, as in early_stopping.KEY=VALUE; write "
    "early_stopping.patience=20",
    "early_stopping=false": "must be a group of keys, as in early_stopping.KEY=VALUE; write "
    "early_stopping.patience=null",
    "early_stopping=5": "must be a group of keys, as in early_stopping.KEY=VALUE; write "
    "early_stopping.patience=5",
    "sweep=lr_reg": "says what -m varies; give python train.py -m sweep=lr_reg\n",
    "sweep=tpe": "is a search; add -m hydra/sweeper=optuna",
}
# The same where it is told of a part alone.
PARTS = {
    "--lr 0.1": "--lr: write lr=0.1, without dashes",
    "--max-iter 5": "--max-iter: the key is epochs; write epochs=5",
    "lr = 0.1": "lr: write lr=0.1",
    "lr =0.1": "lr: write lr=0.1",
    "lr= 0.1": "0.1: write lr=0.1, without spaces",
    "lr: 0.1": "lr:: write lr=0.1",
    "lr 0.1": "lr: write lr=0.1",
    "eta 0.1": "eta: the key is lr; write lr=0.1",
    "-m eta=0.1,1": "eta=0.1,1: the key is lr; write lr=0.1,1",
    "cv=3 sweep=lr class_weight='{1: 2}'": "sweep=lr: says what -m varies; give python "
    "train.py -m cv=3 sweep=lr 'class_weight={1: 2}'\n",
    "-m sweep=lr,seeds cv=3": "sweep=lr,seeds: sweep takes one choice; to vary both give "
    "python train.py -m cv=3 lr_scale=0.03,0.1,0.3,1,3,10 seed=0,1,2,3,4\n",
    "-m sweep=choice(lr,seeds)": "sweep=choice(lr,seeds): sweep takes one choice; to vary both",
    "-m sweep=glob(*)": "sweep=glob(*): sweep takes one choice; give one of them",
    "-lr=0.1": "-lr=0.1: write lr=0.1, without dashes",
    "-momentum=0.5": "-momentum=0.5: write momentum=0.5, without dashes",
    "--lr=0.1": "--lr=0.1: write lr=0.1, without dashes",
    "-max_iter=5": "-max_iter=5: the key is epochs; write epochs=5",
    "--foo=3": "--foo=3: there is no such flag; write KEY=VALUE, see --help",
    "lr:0.1": "lr:0.1: write lr=0.1",
    "lr==0.1": "lr==0.1: write lr=0.1",
    "+lr=0.1": "+lr=0.1: there is such a key already; write lr=0.1, without the +",
    "+eta=0.1": "+eta=0.1: the key is lr; write lr=0.1",
    "--batch_size=0": "--batch_size=0: write batch_size=VALUE, without dashes",
    "mine.npz": "mine.npz: a file is given as data=arrays data.train=mine.npz",
}
# The same of predict.py.
PREDICTIONS = {
    "mine.npz": "mine.npz: a file is given as input=mine.npz",
    "--input mine.npz": "--input: write input=mine.npz, without dashes",
    "model=x input=mine.npz": "model=x: the key is run; write run=x",
    "--checkpoint x": "--checkpoint: the key is run; write run=x",
    "data=mine.npz": "data=mine.npz: the key is input; write input=mine.npz",
    "out=x.csv": "out=x.csv: the key is output; write output=x.csv",
    "device=cuda": "device=cuda: the program runs on the CPU alone; leave it out",
}


@pytest.mark.parametrize(
    ("program", "given", "line"),
    [
        *(("train.py", given, f"{given}: {said}") for given, said in SLIPS.items()),
        *(("train.py", *row) for row in PARTS.items()),
        *(("predict.py", *row) for row in PREDICTIONS.items()),
    ],
)
def test_a_slip_gets_one_line_with_the_key_that_was_meant(program, given, line, command, tmp_path):
    for name in ("pictures/data_batch_1.bin", "hundred/train", "hundred/meta", "folder/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    done = command(program, *shlex.split(given))
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize(
    "program",
    [
        ("train.py",),
        ("predict.py",),
        ("-m", "classifier.report"),
        ("-m", "classifier.export"),
        ("-m", "classifier.sweep.summary"),
    ],
)
def test_every_command_answers_help(program, flag, command):
    done = command(*program, flag)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert program[-1] in done.stdout


def test_a_choice_of_sweep_can_be_shown(command):
    done = command("train.py", "sweep=lr_reg", "--cfg", "job")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_that_is_given_for_two_sweeps_is_one(command, tmp_path):
    done = command("train.py", "-m", "sweep=seeds,lr", "epochs=1", "report.plots=false")
    meant = shlex.split(done.stderr.partition(" give python ")[2])
    done = command(*meant)
    assert done.returncode == 0, done.stderr
    assert "30 jobs: 30 completed" in done.stdout


TEXTS = (
    "0 00 1 -1 1001 0.5 0.0 1.0 1e0 1e3 1e40 1e999 nan none null off no auto all acuracy 0,5 1,5"
).split()


@functools.cache
def read(text):
    """Return whether several values stand there, and the value that Hydra reads."""
    override = OverridesParser.create().parse_override(f"key={text}")
    return override.is_sweep_override(), None if "," in text else override.value()


@functools.cache
def schema_of(field):
    column = "key", field.type, dataclasses.field(metadata=field.metadata)
    return OmegaConf.structured(dataclasses.make_dataclass("Alone", [column], bases=(Options,)))


def takes(field, text):
    """Return whether Hydra, OmegaConf and the limits take a text for a field."""
    several, value = read(text)
    try:
        OmegaConf.to_object(OmegaConf.merge(schema_of(field), {"key": value}))
    except (InputError, OmegaConfBaseException):
        return False
    return not several


def lines_about(key, text, schema):
    """Return what is said of a value that is refused, given in each way there is."""
    given = f"{key}={text}"
    errors = [f"Error merging override {given}", f"{given}: must be"]
    if "," in text:
        errors = [f"Ambiguous value for argument '{given}'"]
    words = [key, *names_elsewhere()["keys"].get(key, [])[:1]]
    if key == "reg":
        words += ["wd", "l2", "C"]
    return [explain(InputError(error), schema) for error in errors] + [
        translated(f"{word}={text}", word, text, fields_of(schema)) or "" for word in words
    ]


@pytest.mark.parametrize("schema", [Config, PredictConfig])
def test_what_is_advised_in_place_of_a_refused_value_is_taken(schema, monkeypatch):
    monkeypatch.setattr(OmegaConf, "load", functools.cache(OmegaConf.load))  # for speed
    fields, advised = fields_of(schema), 0
    for key, field in fields.items():
        if dataclasses.is_dataclass(field.type) or choices_of(key):
            continue
        for text in (text for text in TEXTS if not takes(field, text)):
            for line in lines_about(key, text, schema):
                for named, value in re.findall(r"write ([\w.]+)=([^\s,;]+)", line):
                    if value not in ("VALUE", "NUMBER"):
                        assert takes(fields[named], value), line
                        advised += 1
                for value in re.findall(r"did you mean (.+?)\?", line):
                    assert takes(field, value) or value in fields, line
    assert advised > 20 or schema is PredictConfig


def reg_of(given):
    """Return what the line about a penalty of another program says of reg."""
    line = translated(given, *given.split("="), fields_of(Config))
    return float(re.search(r"reg=([\d.e-]+)$|: ([\d.e-]+) / N;", line)[line.count("/ N;") + 1])


def test_half_the_weight_decay_of_pytorch_shrinks_weights_alike():
    torch = pytest.importorskip("torch")
    W = torch.ones(3, requires_grad=True)
    W.grad = torch.zeros(3)
    torch.optim.SGD([W], lr=1, weight_decay=0.25).step()
    gradient = 2 * reg_of("weight_decay=0.25") * np.ones(3)  # of reg * sum(W ** 2)
    np.testing.assert_allclose(W.detach().numpy(), 1 - gradient)


def test_half_the_alpha_of_sgd_classifier_shrinks_weights_alike():
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(
        loss="log_loss", alpha=0.1, learning_rate="constant", eta0=0.5, max_iter=1, tol=None
    )
    model.fit(np.zeros((2, 1)), [0, 1], coef_init=np.ones((1, 1)))  # two steps without a gradient
    assert model.coef_.item() == pytest.approx((1 - 0.5 * 2 * reg_of("alpha=0.1")) ** 2)


def test_a_half_over_c_and_the_examples_has_the_optimum_of_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    from classifier.loss import softmax_loss_vectorized

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 3
    model = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10, max_iter=1000).fit(X, y)
    W, reg = model.coef_.T, reg_of("C=0.5") / len(X)
    _, gradient = softmax_loss_vectorized(W, X, y, reg)
    assert np.abs(gradient).max() < 1e-6
    assert np.abs(softmax_loss_vectorized(W, X, y, 2 * reg)[1]).max() > 1e-3


def test_every_word_leads_to_one_key_that_there_is():
    train, predict = fields_of(Config), fields_of(PredictConfig)
    table = names_elsewhere()
    assert table["keys"].keys() <= train.keys() | predict.keys()
    for group, choices in table["choices"].items():
        assert set(choices) <= {*choices_of(group)}
    words = [word for key, names in table["keys"].items() if key in train for word in names]
    words += [*table["half"], *table["penalty"], *table["printed"]]
    words += [word for names in table["none"].values() for word in names]
    assert len(words) == len({*words})
    assert not {*words} & {*train}
    for fields in (train, predict):
        taken = {*fields}  # or by an earlier key
        for key, names in table["keys"].items():
            for word in [name for name in names if key in fields and name not in taken]:
                taken.add(word)
                assert f": the key is {key}; " in translated(f"{word}=1", word, "1", fields)
    for line, names in table["none"].items():
        for word in names:
            assert translated(f"{word}=1", word, "1", train) == f"{word}=1: {line}"


def test_the_words_are_read_after_a_mistake_alone(repository):
    code = (
        "import classifier.shell.command, classifier.sweep.launcher\n"
        "from classifier.runs.hints import names_elsewhere\n"
        "print(names_elsewhere.cache_info().currsize)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
