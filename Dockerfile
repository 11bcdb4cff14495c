FROM python:3.12-slim
WORKDIR /src
COPY requirements.txt ./
RUN pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY schemas schemas
COPY watcher watcher
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && pip check
WORKDIR /app
RUN useradd --system --home /app watcher
ENV PYTHONUNBUFFERED=1
USER watcher
EXPOSE 8765
CMD ["watcher", "run", "-c", "/etc/balance-watcher/watcher.toml"]
