#!/usr/bin/env bash
# Starts Athanor. It only finds a Python; all else is in installers/ (see ./gui.sh help).
set -u

here="${BASH_SOURCE[0]}"
while [ -L "$here" ]; do
    target="$(readlink -- "$here")"
    case "$target" in
        /*) here="$target" ;;
        *) here="$(dirname -- "$here")/$target" ;;
    esac
done
root="$(cd -- "$(dirname -- "$here")" && pwd -P)" || exit 1
unset PYTHONHOME PYTHONPATH
export PYTHONUTF8=1

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

for python in "$root/venv/bin/python" "${ATHANOR_PYTHON:-}" python3 python3.12 python3.13 python3.11 python3.14 python; do
    if [ -n "$python" ] && command -v -- "$python" >/dev/null 2>&1 && fits "$python"; then
        exec "$python" "$root/installers" "$@"
    fi
done

# None fits: the one that is there says so, with its version.
for python in python3 python; do
    if command -v -- "$python" >/dev/null 2>&1; then
        exec "$python" "$root/installers" "$@"
    fi
done
echo "Athanor needs Python 3.11 to 3.14, and there is none. On Debian and Ubuntu: sudo apt install python3 python3-venv" >&2
exit 1
