#!/bin/sh
# Engine tests: the image and docker compose, for real. A step of its own, since it needs a container engine; says when it is
# skipped, and exits with 3 then.
set -eu
cd "$(dirname "$0")/.."

if ! docker info >/dev/null 2>&1; then
    echo "ENGINE TESTS SKIPPED: no container engine answers"
    exit 3
fi
if docker compose version >/dev/null 2>&1; then compose="docker compose"; else compose="docker-compose"; fi
compose="$compose -p meshlens-engine-test"

./tests/setup.sh
./tests/engine/bases.sh

echo "== image"
docker build -t meshlens . >/dev/null
docker image inspect --format 'image size: {{.Size}} bytes' meshlens
docker run --rm meshlens --version
docker run --rm meshlens check --config /etc/meshlens/service-connect.toml >/dev/null

echo "== drop-in for FireLens"
.venv/bin/python tests/engine/firelens.py meshlens

echo "== docker compose"
trap '$compose logs --no-color meshlens prepare traffic 2>/dev/null | tail -50; $compose down -v -t 5 >/dev/null 2>&1' EXIT
$compose up -d
.venv/bin/python tests/engine/compose.py

echo "== stop: the account"
$compose stop -t 30 envoy traffic app >/dev/null 2>&1
$compose stop -t 30 meshlens >/dev/null 2>&1
account=$($compose logs --no-color meshlens 2>/dev/null | grep 'account:' | tail -1)
echo "$account"
case "$account" in
    *"dropped=0"*"pending=0"*) ;;
    *) echo "records were lost at the stop"; exit 1 ;;
esac
$compose down -v -t 5 >/dev/null 2>&1
trap - EXIT
echo "engine tests passed"
