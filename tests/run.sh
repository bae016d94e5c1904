#!/bin/sh
# The whole check, cheapest first; stops at the first failure. Nothing is skipped here: what needs a container engine is a
# step of its own, tests/engine.sh.
set -eu
cd "$(dirname "$0")/.."

step() { echo "== $1"; shift; "$@"; }

command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
step "set-up" ./tests/setup.sh
step "format" cargo fmt --check
step "lints" cargo clippy --locked --all-targets -- -D warnings
step "tests" cargo test --locked
step "docs" env RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items --quiet
echo "engine tests (images, docker compose) are a separate step: ./tests/engine.sh"
