# CPU image:   docker build -t dmnet-jax .
# NVIDIA GPUs: docker build --build-arg EXTRAS=video,cuda13 -t dmnet-jax:cuda .
#              docker run --gpus all ... (JAX's wheels bring CUDA; the host has the driver)
# Run:         docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" dmnet-jax \
#                  dmnet-predict --source video.mp4 --out out
FROM python:3.11-slim-bookworm AS build

ARG EXTRAS=video

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source
RUN python -m venv /opt/dmnet
COPY . .
# The tested versions. The GPU libraries of JAX are pinned by JAX itself.
RUN /opt/dmnet/bin/pip install -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11-slim-bookworm

COPY --from=build /opt/dmnet /opt/dmnet
ENV PATH=/opt/dmnet/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 dmnet \
    && mkdir /work \
    && chown dmnet:dmnet /work
USER 1000
WORKDIR /work
# No ENTRYPOINT: every program is a command (dmnet-train, dmnet-predict, dmnet-live, ...).
CMD ["dmnet-doctor"]
