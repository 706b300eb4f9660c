# The image of `proxyproto-rs broker`, as docs/howto/deployment.md runs it. It needs no init: the broker ends at SIGTERM as
# process 1 too, and starts no processes. The root may be read-only; the one place that is written is the state directory.
#
# Base images are pinned by version. Whoever needs the same bytes again pins their digests in a registry of their own.

FROM rust:1.94-slim-bookworm AS rust

# The same Debian and the same Python as below, with a C compiler.
FROM python:3.13-bookworm AS build
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
# Clusters of embedded brokers are a feature that wheels do not have. Debian has one version of protoc for each release.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends protobuf-compiler && rm -rf /var/lib/apt/lists/*
ENV MATURIN_PEP517_ARGS=--features=cluster
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    python -m venv /opt/proxyproto-rs && /opt/proxyproto-rs/bin/pip install --no-cache-dir '.[mqtt,postgres]'

FROM python:3.13-slim-bookworm
COPY --from=build /opt/proxyproto-rs /opt/proxyproto-rs
# A number, so that Kubernetes can see that it is not root's.
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/proxyproto-rs
ENV PATH=/opt/proxyproto-rs/bin:$PATH PYTHONDONTWRITEBYTECODE=1 STATE_DIRECTORY=/var/lib/proxyproto-rs
USER 10001:10001
VOLUME ["/var/lib/proxyproto-rs"]
EXPOSE 1883 8883 8083
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["proxyproto-rs", "health", "--config", "/etc/proxyproto-rs/broker.yaml"]
ENTRYPOINT ["proxyproto-rs"]
CMD ["broker", "--config", "/etc/proxyproto-rs/broker.yaml"]
