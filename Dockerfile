# The service, and every other command, in a container; see docs/deployment.md.
#
# The image is pinned by version. To pin its content too, take the digest that
#   docker buildx imagetools inspect python:3.11.13-slim-bookworm
# prints, and build with --build-arg PYTHON_IMAGE=python:3.11.13-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/vmnet
COPY Makefile pyproject.toml README.md LICENSE NOTICE .telemetry ./
COPY requirements.lock requirements-torch-cpu.txt requirements-torch-cuda.txt ./
COPY conf conf
COPY src src
ARG TORCH=
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN make setup TORCH="$TORCH" TORCH_INDEX="$TORCH_INDEX"

FROM ${PYTHON_IMAGE}
# The code belongs to root and is never written to; everything that runs produce lies below /srv/vmnet.
COPY --from=build /opt/vmnet /opt/vmnet
COPY --from=build --chown=10001:10001 /opt/vmnet/data/06_models/weights /srv/vmnet/data/06_models/weights
RUN chown -R 10001:10001 /srv/vmnet
ENV PATH=/opt/vmnet/.venv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/vmnet
USER 10001:10001
VOLUME /srv/vmnet
EXPOSE 8321
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8321/readyz', timeout=8)"]
ENTRYPOINT ["vmnet-pipeline"]
CMD ["serve", "--host", "0.0.0.0"]
