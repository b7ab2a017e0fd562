# syntax=docker/dockerfile:1
# CPU:   docker build -t robustframe .
# CUDA:  docker build -t robustframe-cuda --build-arg BASE=IMAGE .
#        with an image of CUDA that has Python 3.11 or newer and pip, such as PyTorch's own
ARG BASE=python:3.12-slim
FROM ${BASE}

# An account of its own: models and attacks of others run in here.
RUN useradd --create-home --uid 10001 frame
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE CHANGELOG.md ./
COPY robustframe robustframe
COPY attacks attacks
COPY evaluations evaluations
# The package states the versions that it needs.
# hadolint ignore=DL3013
RUN python -m pip install --no-cache-dir '.[report,hub]' \
    && python -m pip install --no-cache-dir --no-deps torchattacks==3.5.1

USER 10001
WORKDIR /home/frame
ENTRYPOINT ["robustframe"]
CMD ["--help"]
