"""Runs the programs of the repository in processes that have imported the slow packages already.

A line of JSON on stdin says what to run: arguments, folder, files for stdout and stderr; a line on
stdout says how it ended: exit code, seconds, and the peak of resident memory in bytes.
"""

import json
import os
import runpy
import sys
import time
import traceback


def serve():
    import_slow_packages()
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        process = os.fork()
        if process == 0:
            os._exit(run(**request))
        _, status, usage = os.wait4(process, 0)
        ended = {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": time.perf_counter() - start,
            "memory": usage.ru_maxrss * 1024,
        }
        print(json.dumps(ended), flush=True)


def import_slow_packages():
    import sklearn.datasets  # noqa: F401

    import classifier.runs.prediction  # noqa: F401
    import classifier.runs.run  # noqa: F401
    import classifier.shell.command  # noqa: F401
    import classifier.sweep.launcher  # noqa: F401


def run(arguments, folder, stdout, stderr):
    """Run a script as the interpreter would; return the exit code."""
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    os.environ["HYDRA_FULL_ERROR"] = "0"
    sys.argv = arguments
    code = 0
    try:
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
