# One image for every command of Tallygate: `docker run IMAGE serve`, `ingest`, `injector`, …
#
# Three stages: the native transport's front, the packages, and what is shipped, which holds neither
# compiler nor installer. Everything from an index is locked with its hash (image/requirements.lock).

ARG PYTHON=3.11.14-slim-bookworm
ARG RUST=1.95.0-slim-bookworm

# The native front is built of its locked sources and our patches, as `make native` does it.
FROM rust:${RUST} AS rust

FROM python:${PYTHON} AS native
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# What compiles is of the distribution, whose versions the base image's tag stands for.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev patch \
 && rm -rf /var/lib/apt/lists/*
COPY --from=rust /usr/local/cargo /usr/local/cargo
COPY --from=rust /usr/local/rustup /usr/local/rustup
ENV PATH=/usr/local/cargo/bin:$PATH RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo
WORKDIR /source
COPY native native
COPY requirements.lock ./
RUN python native/build.py && mkdir /wheels && cp .cache/native/*/*.whl /wheels/

FROM python:${PYTHON} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /source
COPY image image
# The locked set first: it changes seldom, and its layer is kept while the code changes.
RUN python image/install.py packages /opt/tallygate
COPY --from=native /wheels /wheels
COPY pyproject.toml ./
COPY server server
RUN python image/install.py ours /opt/tallygate --wheels /wheels

FROM python:${PYTHON} AS shipped
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Tallygate" \
      org.opencontainers.image.description="Quota and metering beside each app" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="python:3.11-slim-bookworm"
# Neither an installer nor a user that can log in: a number is all that Kubernetes asks for.
RUN python -m pip uninstall --yes pip setuptools wheel \
 && rm -rf /usr/local/lib/python3.11/ensurepip \
 && mkdir --parents /var/lib/tallygate /run/tallygate \
 && chown 65532:65532 /var/lib/tallygate /run/tallygate
COPY --from=packages /opt/tallygate /opt/tallygate
# The root file system may be read-only: what is written goes to these folders, or to /tmp.
ENV PATH=/opt/tallygate/bin:$PATH \
    PYTHONPATH=/opt/tallygate/packages \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TALLYGATE_DATA_DIR=/var/lib/tallygate
WORKDIR /var/lib/tallygate
USER 65532:65532
# No HEALTHCHECK: probes ask the ops listener, and a shell of their own would cost more than it.
ENTRYPOINT ["tallygate"]
CMD ["--help"]
