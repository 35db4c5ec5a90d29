"""Runs the programs of the repository in processes that have imported the slow packages already.

A line of JSON on stdin asks, a line on stdout answers. `start` says what to run: arguments, folder,
environment, a folder for stdout and stderr; the answer is the number of the process. `wait` says of
which process to tell how it ended: exit code, seconds that it computed, and the peak of resident
memory in bytes; null where it still runs and `block` is false.
"""

import gc
import importlib
import json
import multiprocessing
import os
import runpy
import sys
import traceback


def serve():
    import_slow_packages()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer = os.fork()
            if answer == 0:
                os._exit(run(**request["start"]))
        else:
            answer = wait(request["wait"], 0 if request["block"] else os.WNOHANG)
        print(json.dumps(answer), flush=True)


def wait(process, how):
    ended, status, usage = os.wait4(process, how)
    if ended == 0:
        return None
    seconds = usage.ru_utime + usage.ru_stime
    return os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * 1024


SLOW = """tqdm PIL.Image PIL.ImageDraw PIL.ImageFont classifier.report.pages.draw
    classifier.runs.prediction classifier.runs.run
    classifier.shell.command classifier.shell.run_one classifier.sweep.launcher
    classifier.report.pages.sweep_page numpy.ma psutil""".split()


def import_slow_packages():
    """Do what every program would do again: import, find plugins, compile templates."""
    for module in SLOW + sys.argv[1:]:
        importlib.import_module(module)
    from hydra import compose, initialize_config_dir
    from hydra.core.plugins import Plugins
    from PIL import Image

    from classifier.report.text import TEMPLATES, template
    from classifier.runs.config import CONFIGS, register_schemas
    from classifier.shell.hydra_compat import VERSION_BASE

    register_schemas()
    Plugins.instance()
    Image.init()
    # What a grammar has learned about such texts is kept.
    with initialize_config_dir(str(CONFIGS), **VERSION_BASE):
        compose("train", ["data=blobs", "lr=0.1", "tags=[a,'b c']", "class_weight={0: 1e-3}"])
    for path in TEMPLATES.glob("*.[ht]*"):
        template(path.name)


def run(arguments, folder, environment, outputs):
    """Run a script, or what follows -m or -c, as the interpreter would; return the exit code."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{outputs}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    os.environ |= {"HYDRA_FULL_ERROR": "0"} | environment
    # A process that draws is a copy of this one: to start and to import again takes 0.6 s of CPU.
    # That a started one works is seen by the tests with processes of their own.
    context = multiprocessing.get_context
    multiprocessing.get_context = lambda name=None: context("fork" if name == "spawn" else name)
    code = 0
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] == "-c":
            exec(arguments[1], {"__name__": "__main__"})
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


if __name__ == "__main__":
    serve()
