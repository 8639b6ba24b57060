"""The sessions that need more than one Python: ``nox``, ``nox --session tests-3.12``.

A Python that is not on the machine is skipped. ``nox --download-python auto`` gets it.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15", "3.14t"]
OLDEST = ["trio==0.31.0", "attrs==23.2.0"]
"""The oldest versions that pyproject.toml allows."""
OLDEST_OF_EXTRAS = ["prometheus-client==0.20.0", "opentelemetry-api==1.24.0", "starlette==0.37.0"]
"""The same for the extras."""

nox.options.sessions = ["tests", "oldest"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.allow_parallel = True
nox.options.error_on_missing_interpreters = False

# pyenv has the Pythons that it installed on the PATH only if they are chosen.
pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
bins = [str(path) for path in pyenv.glob("versions/3.1*/bin")]
os.environ["PATH"] = os.pathsep.join([*bins, os.environ["PATH"]])


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests that depend on the Python, with the locked packages."""
    install(session)
    run_tests(session)


@nox.session
def oldest(session: nox.Session) -> None:
    """Run the same tests with the oldest trio and attrs, and the oldest packages of the extras."""
    # Each version of the SDK needs the API of the same version.
    install(session, *OLDEST, *OLDEST_OF_EXTRAS, "opentelemetry-sdk==1.24.0")
    left_out = [
        # The gate runs it on this Python, and it needs no trio: a minute less.
        "tests/threads/test_keyboard_interrupt.py",
        # The test client of an old Starlette needs an old httpx.
        "tests/examples/test_web_app.py",
    ]
    run_tests(session, *(f"--ignore={path}" for path in left_out))


@nox.session(python="3.14t", allow_parallel=False)
def stress(session: nox.Session) -> None:
    """Stress each dialect without the GIL."""
    install(session)
    session.run("python", "-m", "tests.stress", *session.posargs)


@nox.session(python=PYTHONS)
@nox.parametrize("dependencies", ["oldest", "locked"])
def consumer(session: nox.Session, dependencies: str) -> None:
    """Check the types of tests/typing/consumer against the built wheel, and run it."""
    # The tools are those of the environment that nox is in.
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir")
    check = (sys.executable, "tests/typing/check_consumer.py")
    with tempfile.TemporaryDirectory() as work:  # away from our sources and settings
        shutil.copytree("tests/typing/consumer", f"{work}/consumer")
        for project in (".", "tests/typing/consumer"):
            session.run(*build, f"{work}/dist", project, external=True, silent=True)
        if dependencies == "oldest":
            session.install(*OLDEST)
        else:
            session.install("--require-hashes", "--requirement", ".ci/requirements-demo.txt")
        session.install(*map(str, Path(work).glob("dist/*.whl")))
        session.run(*check, f"{work}/consumer", f"{session.bin}/python", external=True)


def install(session: nox.Session, *more: str) -> None:
    """Install the locked packages, this project, and *more*."""
    session.install("--require-hashes", "--requirement", ".ci/requirements-test.txt")
    session.install("--no-build-isolation", "--no-deps", "--editable", ".")
    if more:
        session.install(*more)


def run_tests(session: nox.Session, *options: str) -> None:
    """Run the tests, but not those of the alerts, the pages, the benchmarks and the demos.

    Those do not depend on the versions: the gate runs them once.
    """
    session.run("python", "-c", "import sys, trio, attrs; print(sys.version, trio.__version__)")
    left_out = [
        "tests/alerts",
        "tests/docs",
        "tests/benchmarks",
        "tests/examples/test_volume_controller_signals.py",
        "tests/examples/test_volume_controller_end_to_end.py",
    ]
    session.run(
        "pytest", "-q", "-p", "no:cacheprovider", *(f"--ignore={path}" for path in left_out),
        *options, *session.posargs,
        env={
            "HYPOTHESIS_STORAGE_DIRECTORY": f"{session.virtualenv.location}/hypothesis",
            "NAMEDTASKS_STRIDE": "5",
        },
    )  # fmt: skip
