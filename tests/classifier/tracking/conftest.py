"""The trackers, what each has of a run, read back by its own client, and the files of the run."""

import contextlib
import csv
import json
import math
import os
import urllib.parse
from types import SimpleNamespace

import pytest

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")
KEPT = {"train": "best_train", "val": "best_val", "test": "test"}  # the weights that were kept


@pytest.fixture(params=["tensorboard", pytest.param("mlflow", marks=pytest.mark.slow)])
def tracker(request):
    """The name of each tracker, where its packages are installed."""
    packages = {"tensorboard": ["tensorboardX", "tensorboard"], "mlflow": ["mlflow"]}
    for package in packages[request.param]:
        pytest.importorskip(package)
    return request.param


@pytest.fixture(scope="session")
def told():
    """Return what a tracker has of the run in a folder, whose figures are those of its files."""

    def told(tracker, folder, database):
        run = of_mlflow(folder, database) if tracker == "mlflow" else of_tensorboard(folder)
        run.values = {n: [v for _, v in points] for n, points in run.curves.items()}
        run.steps = {n: [step for step, _ in points] for n, points in run.curves.items()}
        return run

    return told


@pytest.fixture(scope="session")
def check_figures():
    """Compare the curves and figures that a tracker has of a run with the files in its folder."""

    def check(run, folder):
        with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for name in CURVES:
            points = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
            points = [(epoch, value) for epoch, value in points if math.isfinite(value)]
            assert run.steps.get(name, []) == [epoch for epoch, _ in points]
            assert run.values.get(name, []) == pytest.approx([v for _, v in points], rel=1e-6)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        for split, metrics in report["metrics"].items():
            for name in {"loss", "accuracy", "macro_f1"} & {*(metrics or {})}:
                (point,) = run.curves[f"{KEPT[split]}_{name}"]
                assert point == (report["best_epoch"], pytest.approx(metrics[name], rel=1e-6))
        return report, len(rows)

    return check


def of_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    (file,) = (folder / "tensorboard").iterdir()
    events = EventAccumulator(str(file), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
    curves = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    texts, session, keys = {}, {}, {}
    for tag in events.Tags()["tensors"]:
        name, _, kind = tag.rpartition("/")
        if kind == "text_summary":
            texts[name] = events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
    with contextlib.suppress(KeyError):  # while the run goes on
        for name, content in events.PluginTagToContent("hparams").items():
            session[name] = HParamsPluginData.FromString(content)
        keys = session["_hparams_/session_start_info"].session_start_info.hparams
    images = {name: events.Images(name)[0].encoded_image_string for name in events.Tags()["images"]}
    return SimpleNamespace(
        curves={name: [(e.step, e.value) for e in points] for name, points in curves.items()},
        times=[event.wall_time for points in curves.values() for event in points],
        params={
            key: value.string_value or f"{value.number_value:g}" for key, value in keys.items()
        },
        texts=texts,
        files={name: len(image) for name, image in images.items()},
        completed="_hparams_/session_end_info" in session,
        events=events,
    )


def of_mlflow(folder, database):
    from mlflow import MlflowClient

    client = MlflowClient(database)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    known_by = urllib.parse.quote(os.fsencode(folder.resolve()))
    (run,) = client.search_runs(experiments, f"tags.folder = '{known_by}'")
    key, artifacts = run.info.run_id, []
    for listed in client.list_artifacts(key):
        artifacts += client.list_artifacts(key, listed.path) if listed.is_dir else [listed]
    curves = {name: client.get_metric_history(key, name) for name in run.data.metrics}
    tags = run.data.tags
    return SimpleNamespace(
        curves={name: [(m.step, m.value) for m in points] for name, points in curves.items()},
        times=[m.timestamp / 1000 for points in curves.values() for m in points],
        params=run.data.params,
        texts=tags | {"status": f"{tags.get('status')}: {tags.get('reason')}"},
        files={artifact.path: artifact.file_size for artifact in artifacts},
        completed=run.info.status == "FINISHED",
        info=run.info,
    )
