"""What other programs call the keys of this one, and how their penalties are turned into `reg`.

Read only when a key has not been found, for the sentence about it.
"""

import re
from collections.abc import Callable

from omegaconf import OmegaConf

from classifier.runs.config import CONFIGS, Fields
from classifier.runs.nearest import (
    accepted,
    choices_of,
    choices_with,
    examples,
    nearest_choice,
    value_hint,
    value_to_write,
)
from data.options import describe

# The words of others for a key, of train.py and of predict.py; the first key that a program has.
SAME = {
    "lr": "learning_rate learn_rate learning_rate_init eta eta0 step_size base_lr initial_lr",
    "epochs": "max_iter max_iters n_epochs num_epochs epoch max_epochs num_train_epochs n_iter "
    "num_iter iterations iters",
    "batch_size": "bs batch mini_batch mini_batch_size train_batch_size",
    "seed": "random_state random_seed rng rng_seed manual_seed",
    "momentum": "beta1 beta_1 mom",
    "cv": "folds n_folds k_folds num_folds k_fold cv_folds n_splits cross_validation",
    "class_weight": "class_weights",
    "label_smoothing": "smoothing label_smooth",
    "calibrate": "calibration temperature temperature_scaling",
    "optimizer": "optim opt optimiser solver algorithm method",
    "optimizer.beta2": "beta_2",
    "optimizer.epsilon": "eps",
    "optimizer.tol": "tolerance rtol gtol ftol",
    "schedule": "scheduler lr_schedule lr_scheduler learning_rate_schedule",
    "schedule.warmup_steps": "warmup num_warmup_steps warmup_iters",
    "schedule.gamma": "lr_decay decay_rate",
    "preprocessing": "preprocess preprocessor normalize normalise normalization scaler scaling "
    "standardize standardise",
    "early_stopping.patience": "n_iter_no_change early_stopping_rounds early_stopping_patience",
    "objective": "metric scoring",
    "data": "dataset data_set",
    "data.train": "train_data train_file train_path data_file",
    "data.root": "data_dir data_path data_root",
    "data.n_classes": "num_classes",
    "data.val_fraction": "val_split validation_split validation_fraction val_size valid_size "
    "validation_size val_ratio",
    "data.test_fraction": "test_size test_split test_ratio",
    "resume": "resume_from ckpt_path resume_from_checkpoint",
    "checkpoint.every": "save_every save_freq save_steps",
    "report.plots": "plot",
    "tracker": "logger report_to",
    "tracker_live": "live",
    "run": "model model_path checkpoint ckpt weights",
    "input": "data x file input_file input_path test examples",
    "output": "out output_file output_path predictions",
    "outputs": "output_dir out out_dir output save_dir log_dir results_dir",
}

# What chooses how much is printed, where there is the key quiet.
PRINTED = "verbose verbosity silent log_level"

# What there is no key for.
NONE = {
    "the program runs on the CPU alone; leave it out": "device gpu gpus cuda n_gpus accelerator",
    "all cores are used; only a sweep has hydra.launcher.n_jobs": "n_jobs num_workers workers",
    "the computation has one precision; leave it out": "dtype precision fp16 amp half",
    "what is printed is not chosen by a key; leave it out": PRINTED,
    "the examples are always shuffled, as seed says; leave it out": "shuffle",
    "there is always a bias, and it is never penalised; leave it out": "fit_intercept bias",
    "the loss is always softmax cross-entropy; leave it out": "loss criterion multi_class",
    "the model is always linear; leave it out": "model arch hidden_size hidden_layer_sizes "
    "layers dropout activation",
    "the penalty is always reg * sum(W ** 2); write reg=VALUE": "l1 l1_ratio penalty regularizer",
}

# Words for a penalty: with a 1/2 that reg has not, without it or one does not know which, and C.
HALF = {
    "weight_decay": "weight_decay of PyTorch's SGD",
    "wd": "weight_decay of PyTorch's SGD",
    "alpha": "alpha of scikit-learn's SGDClassifier",
}
PENALTY = (
    "l2 l2_reg l2_penalty l2_lambda l2_regularization lambda lambd lamda lam reg_lambda "
    "reg_strength regularization regularisation penalty_strength"
)


def translated(given: str, key: str, value: str, fields: Fields) -> str | None:
    """Return the line about a key that has another name here; None where it is no such word.

    Parameters
    ----------
    given : what was written.
    key, value : its parts; the key may be in another program's group, as in trainer.max_epochs.
    fields : the program's keys.
    """
    if key.startswith("hydra"):
        return None
    for word in dict.fromkeys(map(_plain, (key, key.rpartition(".")[2]))):
        if "reg" in fields and (line := _penalty(word, value, fields)):
            return f"{given}: {line}"
        if own := _own_key(word, fields):
            return f"{given}: the key is {own}; {_written(own, value, fields)}{_with(own)}"
        if "quiet" in fields and word in map(_plain, PRINTED.split()):
            return f"{given}: write quiet=true, for warnings and mistakes alone, or leave it out"
        for line, words in NONE.items():
            if word in map(_plain, words.split()):
                return f"{given}: {line}"
    return None


def similar_words(fields: Fields) -> dict[str, str]:
    """Return the key behind each name that someone may have misspelt."""
    others = {word: key for key, words in SAME.items() if key in fields for word in words.split()}
    return others | {key: key for key in fields}


def _own_key(word: str, fields: Fields) -> str | None:
    """Return the key that has a name, or ends with it, or is called so elsewhere."""
    for key in fields:
        if _plain(key) == word:
            return key
    for key, words in SAME.items():
        if key in fields and word in map(_plain, words.split()):
            return key
    ends = [key for key in fields if _plain(key.rpartition(".")[2]) == word]
    return ends[0] if len(ends) == 1 else None


def _written(key: str, value: str, fields: Fields) -> str:
    """Say how the key is given the value, and what it can be where the value is none of it."""
    if not value:
        return f"write {key}=VALUE"
    if key == "data" and (own := examples(value)):
        return f"write {own}"
    if not accepted(key, value, fields):
        hint = value_hint(key, value, fields[key]).removeprefix("; ")
        return hint or f"it must be {describe(fields[key])}"
    if names := choices_of(key):
        nearest = nearest_choice(key, value, names)
        return f"write {key}={nearest}" if nearest else f"it must be one of {', '.join(names)}"
    return f"write {key}={value}"


def _with(key: str) -> str:
    """Return the choices that a key asks for, where the default of its group has no such key."""
    named, group = choices_with(key), key.partition(".")[0]
    defaults = OmegaConf.load(CONFIGS / "train.yaml").defaults
    chosen = {f"{group}={entry[group]}" for entry in defaults if group in entry}
    return f", with {' or '.join(named)}" if named and chosen.isdisjoint(named) else ""


def _penalty(word: str, value: str, fields: Fields) -> str | None:
    """Return how a penalty is turned into reg, which multiplies sum(W ** 2) without a 1/2."""

    def reg(convert: Callable[[float], float]) -> str:
        return value_to_write("reg", _each(value, convert), fields)

    half = reg(lambda v: v / 2)
    for other, owner in HALF.items():
        if word == _plain(other):
            return f"the key is reg, half the {owner}; write reg={half}"
    if word in map(_plain, PENALTY.split()):
        return (
            "the key is reg, of reg * sum(W ** 2) without a 1/2; write "
            f"reg={value_to_write('reg', value, fields)}, or where yours has the 1/2 reg={half}"
        )
    if word == "c":
        share = reg(lambda v: 1 / (2 * v))
        number = "" if share == "VALUE" else f": {share} / N"
        return (
            f"the key is reg, which is 1 / (2 * C * N) for N training examples{number}; "
            "write reg=NUMBER"
        )
    return None


def _each(value: str, convert: Callable[[float], float]) -> str:
    """Return a number, or each of several, converted."""
    try:
        return ",".join(f"{convert(float(one)):.6g}" for one in value.split(","))
    except (ValueError, ZeroDivisionError):
        return "VALUE"


def _plain(word: str) -> str:
    """Return a word without what its spellings differ in."""
    return re.sub(r"[-_]", "", word).lower()
