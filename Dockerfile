# The meshlens image: one binary on a slim Debian. Build: docker build -t meshlens .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY config config
# Benches and tests are not copied; their targets in Cargo.toml are not built, but Cargo wants the files to be there.
RUN mkdir -p benches && for bench in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name *= *"\(.*\)"/\1/p' Cargo.toml); do echo 'fn main() {}' > benches/$bench.rs; done \
    && cargo build --release --locked --bin meshlens

FROM debian:bookworm-slim
# Certificates of the AWS endpoints; the file of the build image, so that this stage needs no network.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/meshlens /usr/local/bin/meshlens
COPY config/service-connect.toml config/local.toml /etc/meshlens/
# The allocator takes no huge pages, not even where the kernel gives them unasked: they would keep up to twice the memory resident.
ENV MIMALLOC_ALLOW_THP=0
# Exec form: the router is process 1 and gets SIGTERM itself.
ENTRYPOINT ["/usr/local/bin/meshlens"]
CMD ["run", "--config", "/etc/meshlens/service-connect.toml"]
