# By its digest, which no registry can give to something else. The newest, now and then, with the tests of this image:
#   docker buildx imagetools inspect python:3.12-slim --format '{{.Manifest.Digest}}'
FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea
WORKDIR /src
COPY requirements.txt ./
RUN pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY schemas schemas
COPY watcher watcher
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && pip check
WORKDIR /app
RUN useradd --system --home /app watcher && install --directory --owner watcher --mode 0700 var
ENV PYTHONUNBUFFERED=1
USER watcher
EXPOSE 8765
# No shell in between: it is PID 1, or the child of `docker run --init`, and hears this itself.
STOPSIGNAL SIGTERM
CMD ["watcher", "run", "-c", "/etc/balance-watcher/watcher.toml"]
