# All processes of Strand in one image. `docker build -t strand .`, or buildah bud.
# Bases are arguments, so that they can be pinned by digest, or taken from elsewhere.
ARG BUILD_BASE=docker.io/library/rust:1-bookworm
ARG RUN_BASE=docker.io/library/debian:bookworm-slim

FROM ${BUILD_BASE} AS build
WORKDIR /src
COPY . .
RUN scripts/sbom /out/sbom
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p operator -p node-agent -p csi-driver -p kv-endpoint -p strandctl \
    && mkdir -p /out/bin \
    && for program in operator node-agent csi-driver kv-endpoint strandctl; do \
        install -m 0755 "target/release/$program" /out/bin/; \
    done

FROM ${RUN_BASE}
# What the agent and the CSI node run: file systems made, checked and grown, arrays put together. Nothing else needs a program.
RUN apt-get update \
    && apt-get install -y --no-install-recommends e2fsprogs xfsprogs mdadm util-linux mount ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/debconf/*
COPY --from=build /out/bin/ /usr/bin/
COPY --from=build /out/sbom/ /usr/share/sbom/
COPY LICENSE /usr/share/doc/strand/LICENSE
RUN ln -s strandctl /usr/bin/kubectl-strand && ln -s strandctl /usr/bin/kubectl_complete-strand
# The two privileged containers of a node ask for root themselves.
USER 65532:65532
