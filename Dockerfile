FROM python:3.12-slim
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY watcher watcher
# The package itself has no locked build backend at run time: its source on the path is the installation.
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1
RUN printf '#!/bin/sh\nexec python -m watcher "$@"\n' > /usr/local/bin/watcher && chmod +x /usr/local/bin/watcher \
    && useradd --system --home /app watcher
USER watcher
EXPOSE 8765
CMD ["watcher", "run", "-c", "/etc/balance-watcher/watcher.toml"]
