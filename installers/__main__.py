"""The launcher's way in, written so that any Python can read it: an old one is told what is needed, and no more."""

import os
import sys

LOWEST, NEWEST = (3, 11), (3, 14)  # gui.sh and gui.bat look for the same range; a test compares them


def refuse_version(version):
    """Return the sentence for a Python outside the range, or None; kept free of newer syntax on purpose."""
    numbers = "{0}.{1}".format(*version[:2])  # noqa: UP030 - must run on Python 2.7 too
    if tuple(version[:2]) < LOWEST:
        return (
            "Athanor needs Python 3.11 to 3.14, and this is Python " + numbers + ". Install Python 3.12 from "
            "python.org (or your system's packages) beside it and start again; nothing else has to change."
        )
    if tuple(version[:2]) > NEWEST:
        return (
            "Athanor needs Python 3.11 to 3.14: PyTorch's packages for it do not exist for Python " + numbers + " yet. "
            "Install Python 3.12 beside it and start again; this one may stay."
        )
    return None


def main():
    """Check the Python, then hand over to installers.commands; returns the exit code."""
    sentence = refuse_version(sys.version_info)
    if sentence:
        sys.stderr.write(sentence + "\n")
        return 1
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.path.dirname(here)] + [place for place in sys.path if os.path.abspath(place or ".") != here]
    from installers.commands import main as run_command

    return run_command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
