# The command wsrnas in an image for NVIDIA GPUs; it works without one, too.
#
#   docker build -t wsrnas .
#   docker run --rm --gpus all --ipc=host -u "$(id -u):$(id -g)" -v "$PWD:/results" wsrnas \
#       train --recipe tiny --dataset digits --runs /results/runs
#
# PyTorch's packages bring CUDA themselves; the machine needs its driver alone.
ARG BASE=nvidia/cuda:12.8.1-base-ubuntu24.04

FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/wsrnas
COPY requirements.txt /build/requirements.txt
RUN /opt/wsrnas/bin/pip install --no-cache-dir -r /build/requirements.txt
COPY . /build/source
RUN /opt/wsrnas/bin/pip install --no-cache-dir --no-deps /build/source

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 wsrnas && mkdir /results && chown wsrnas /results
COPY --from=build /opt/wsrnas /opt/wsrnas
ENV PATH=/opt/wsrnas/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/dev/shm/matplotlib
USER 10001
WORKDIR /results
ENTRYPOINT ["wsrnas"]
CMD ["--help"]
