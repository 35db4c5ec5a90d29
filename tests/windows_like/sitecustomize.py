"""Lets the project's own code see a Windows: Python runs this where it finds it on PYTHONPATH.

What Windows has not got is missing, and what it refuses is refused, for code of this repository and
for what the standard library does on its behalf. Installed libraries see Linux as it is: they ask
`sys.platform` which way to go, and that stays 'linux'.

Together with PYTHONIOENCODING=cp1252 and PYTHONUTF8=0. Not shown: backslashes in paths, names that
differ in case only, signals (a process that is stopped from outside there is killed).
"""

import builtins
import errno
import io
import multiprocessing
import multiprocessing.context
import os
import signal
import sys

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
SERVER = REPOSITORY + os.path.join("tests", "fork_server.py")  # of programs; it may see Linux
STANDARD = os.path.dirname(os.__file__) + os.sep
# Parts of the standard library that know two ways to do a thing and go the one for Linux.
CHOOSING = tuple(STANDARD + name for name in ("tempfile.py", "subprocess.py", "multiprocessing"))

MODULES = (
    "crypt curses fcntl grp nis posix pty pwd readline resource spwd syslog termios tty".split()
)
NAMES = {
    os: """
        O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NDELAY O_NOATIME O_NOCTTY O_NOFOLLOW
        O_NONBLOCK O_PATH O_RSYNC O_SYNC O_TMPFILE WEXITSTATUS WIFEXITED WIFSIGNALED WNOHANG
        WTERMSIG chown chroot confstr copy_file_range ctermid eventfd fchdir fchown fdatasync fork
        forkpty fpathconf fstatvfs getegid geteuid getgid getgroups getloadavg getpgid getpgrp
        getpriority getresgid getresuid getsid getuid getxattr initgroups killpg lchown listxattr
        lockf major makedev memfd_create minor mkfifo mknod nice openpty pathconf pidfd_open pipe2
        posix_fadvise posix_fallocate posix_spawn posix_spawnp pread preadv pwrite pwritev readv
        register_at_fork removexattr sched_get_priority_max sched_getaffinity sched_getparam
        sched_getscheduler sched_setaffinity sched_yield sendfile setegid seteuid setgid setgroups
        setpgid setpriority setsid setuid setxattr statvfs sync sysconf sysconf_names tcgetpgrp
        tcsetpgrp ttyname uname wait wait3 wait4 waitid writev
    """,
    signal: """
        ITIMER_REAL SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPROF SIGQUIT
        SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGUSR1 SIGUSR2 SIGWINCH SIG_BLOCK SIG_UNBLOCK alarm
        getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigwait
    """,
}
MESSAGES = {
    5: (errno.EACCES, "Access is denied"),
    32: (errno.EACCES, "The file is being used by another process"),
    123: (errno.EINVAL, "The file name, folder name or volume label syntax is incorrect"),
    183: (errno.EEXIST, "Cannot create a file when that file already exists"),
    1314: (errno.EINVAL, "A required privilege is not held by the client"),
}


def refusal(code, *paths):
    """Return the error that Windows has for a code; PermissionError where errno says so."""
    number, text = MESSAGES[code]
    error = OSError(number, text, paths[0], None, *paths[1:])
    error.winerror = code
    return error


def is_own(file):
    return file.startswith(REPOSITORY) and "site-packages" not in file and file != SERVER


def asked_by_project():
    """Return whether the call comes from the repository, be it by way of pathlib or shutil."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        passed_on = file.startswith(("<", STANDARD)) and "site-packages" not in file
        if file != __file__ and (not passed_on or file.startswith(CHOOSING)):
            return is_own(file)
        frame = frame.f_back
    return False


def hide(module, names):
    """Take names away from a module, but for callers outside the repository."""
    hidden = {name: vars(module).pop(name) for name in names if name in vars(module)}

    def find(name):
        if name in hidden and not is_own(sys._getframe(1).f_code.co_filename):
            return hidden[name]
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    module.__getattr__ = find


def without_modules(real):
    # In place of __import__, for a library may have put them into sys.modules before.
    def find(name, globals=None, locals=None, fromlist=(), level=0):  # noqa: A002
        if name in MODULES and level == 0 and is_own((globals or {}).get("__file__") or ""):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, globals, locals, fromlist, level)

    return find


def in_use(path):
    """Return whether a process has a file open, or a file or its current folder in a folder."""
    place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return any(other == place or other.startswith(place + os.sep) for other in open_places())


def open_places():
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = [f"fd/{number}" for number in os.listdir(f"/proc/{process}/fd")]
        except OSError:  # of someone else, or ended by now
            continue
        for link in [*links, "cwd"]:
            try:
                yield os.readlink(f"/proc/{process}/{link}")
            except OSError:  # closed by now
                continue


def removing(real):
    def remove(path, *, dir_fd=None):
        if asked_by_project() and in_use(os.fsdecode(path)):
            raise refusal(32, path)
        return real(path, dir_fd=dir_fd)

    return remove


def renaming(real, *, over):
    """Return os.replace (over) or os.rename: what is open is neither moved nor replaced."""

    def rename(src, dst, **options):
        if asked_by_project() and os.path.lexists(src):
            if in_use(os.fsdecode(src)):
                raise refusal(32, src, dst)
            if os.path.lexists(dst) and not over:
                raise refusal(183, src, dst)
            if os.path.lexists(dst) and (os.path.isdir(dst) or in_use(os.fsdecode(dst))):
                raise refusal(5, src, dst)
            check_name(dst)
        return real(src, dst, **options)

    return rename


def check_name(path):
    name = os.path.basename(os.fsdecode(path))
    if any(letter in '<>:"|?*' or letter < " " for letter in name) or name.endswith((".", " ")):
        raise refusal(123, path)


def making(real):
    def make(path, *arguments, **options):
        if asked_by_project():
            check_name(path)
        return real(path, *arguments, **options)

    return make


def no_link(src, dst, *_, **__):
    raise refusal(1314, src, dst)


def opening_descriptor(real):
    def open_descriptor(path, flags, *arguments, **options):
        if asked_by_project():
            if os.path.isdir(path):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            if flags & os.O_CREAT:
                check_name(path)
        return real(path, flags, *arguments, **options)

    return open_descriptor


def opening(real):
    """Return `open` with the encoding and the ends of lines that it has on Windows."""

    def open_file(
        file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **options
    ):
        if asked_by_project():
            if not isinstance(file, int):
                if os.path.isdir(file):
                    raise PermissionError(errno.EACCES, "Permission denied", file)
                if "r" not in mode:
                    check_name(file)
            if "b" not in mode:
                encoding = "cp1252" if encoding in (None, "locale") else encoding
                if newline is None and not {"r", "+"} & {*mode}:
                    newline = "\r\n"
        return real(file, mode, buffering, encoding, errors, newline, **options)

    return open_file


def relative(real):
    """Return os.path.relpath; there is no way out of WINDOWS_LIKE_DRIVE, nor into it."""

    def relpath(path, start=None):
        drive = os.environ.get("WINDOWS_LIKE_DRIVE")
        places = [os.path.realpath(place) + os.sep for place in (path, start or os.curdir)]
        if drive and len({place.startswith(drive + os.sep) for place in places}) == 2:
            raise ValueError(f"path is on mount {path!r}, start on mount {start!r}")
        return real(path, start)

    return relpath


for module, names in NAMES.items():
    hide(module, names.split())
os.unlink, os.remove, os.rmdir = removing(os.unlink), removing(os.remove), removing(os.rmdir)
os.rename, os.replace = renaming(os.rename, over=False), renaming(os.replace, over=True)
os.mkdir, os.symlink, os.open = making(os.mkdir), no_link, opening_descriptor(os.open)
os.path.relpath = relative(os.path.relpath)
builtins.__import__ = without_modules(builtins.__import__)
builtins.open = io.open = opening(io.open)
os.linesep = "\r\n"
for stream in (sys.stdout, sys.stderr):
    if stream is not None:
        stream.reconfigure(newline="\r\n")
multiprocessing.set_start_method("spawn")
for method in ("fork", "forkserver"):
    multiprocessing.context._concrete_contexts.pop(method, None)
