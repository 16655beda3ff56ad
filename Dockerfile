# syntax=docker/dockerfile:1
# The autopilot with its embedded PostgreSQL and demo, as an ordinary user.
# The pages listen on all addresses inside the container, so dashboard.users must name somebody, and
# it does not start without. They speak plain HTTP: publish them on loopback only (compose.yaml does).

ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /app
COPY requirements.txt ./
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

FROM python:${PYTHON_VERSION}-slim
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2 \
    AUTOPILOT_DASHBOARD__HOST=0.0.0.0
# PostgreSQL refuses to run as root and wants an account with a name.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin autopilot \
    && mkdir -p /app/data \
    && chown autopilot:autopilot /app/data \
    && chmod 0700 /app/data
COPY --from=build /venv /venv
WORKDIR /app
COPY run.py LICENSE config.yaml.example ./
COPY backend backend
COPY dashboard dashboard
COPY static static
COPY templates templates
USER autopilot
# Store, logs, checkpoints and the embedded server's cluster.
VOLUME /app/data
EXPOSE 8050
# The supervisor ends its processes in order, and PostgreSQL last, on SIGTERM.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8050/healthz', timeout=4)"]
ENTRYPOINT ["python", "run.py"]
