#!/bin/sh
# Installs what the tests need beside Rust, pinned: a C compiler and Python from Debian where they are missing, the Python
# packages (a real Envoy, moto, DuckDB) in .venv. Says what it does; does nothing the second time.
set -eu
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
want=
command -v cc >/dev/null || want="$want gcc libc6-dev"
command -v c++ >/dev/null || want="$want g++"
command -v make >/dev/null || want="$want make"
python3 -c 'import ensurepip, venv' 2>/dev/null || want="$want python3 python3-venv"
[ -e /etc/ssl/certs/ca-certificates.crt ] || want="$want ca-certificates"
if [ -n "$want" ]; then
    echo "setup: installing$want"
    as_root apt-get update -qq
    # shellcheck disable=SC2086  # a list of packages
    as_root apt-get install -y -qq --no-install-recommends $want
fi
[ "${1-}" = compiler ] && exit 0

if ! cmp -s tests/requirements.txt .venv/requirements.done; then
    echo "setup: Python packages into .venv"
    python3 -m venv .venv
    .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt .venv/requirements.done
fi
