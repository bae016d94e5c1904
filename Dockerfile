# The meshlens image, a drop-in for FireLens: one binary under the names that task definitions call, and a shell for health checks.
# Nothing here depends on the architecture: docker buildx build --platform linux/amd64,linux/arm64 -t meshlens .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY config config
COPY image image
# Benches and tests are not copied; their targets in Cargo.toml are not built, but Cargo wants the files to be there.
RUN mkdir -p benches && for bench in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name *= *"\(.*\)"/\1/p' Cargo.toml); do echo 'fn main() {}' > benches/$bench.rs; done \
    && cargo build --release --locked --bin meshlens
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends busybox
# The root of the image: the binaries with the libraries that they load, certificates, users, and names for it all.
RUN sh image/root.sh target/release/meshlens /root.new

FROM scratch
COPY --from=build /root.new /
ENV PATH=/usr/local/bin:/usr/bin:/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# The allocator takes no huge pages, not even where the kernel gives them unasked: they would keep up to twice the memory resident.
ENV MIMALLOC_ALLOW_THP=0
EXPOSE 24224 2020
STOPSIGNAL SIGTERM
# Exec form: the router is process 1 and gets SIGTERM itself. Without arguments it runs what the ECS agent mounts at
# /fluent-bit/etc/fluent-bit.conf; arguments are a command of meshlens, options of Fluent Bit, or a program with its arguments.
ENTRYPOINT ["/entrypoint.sh"]
