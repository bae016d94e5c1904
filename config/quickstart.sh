#!/bin/sh
# The main job on a real Envoy log, without an AWS account: see config/quickstart.toml. Ends by itself.
set -eu
cd "$(dirname "$0")/.."
./tests/setup.sh compiler
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
rm -rf out
cargo build --release --locked --quiet
./target/release/meshlens run --config config/quickstart.toml
echo
echo "files under out/, laid out as the three services would:"
find out -type f | sort
