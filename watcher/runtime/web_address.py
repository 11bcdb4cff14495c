"""Whether a text of the config can be an address of the web."""

from urllib.parse import urlsplit


def is_web_address(text: str) -> bool:
    """http:// or https://, a host, and nothing that a client of HTTP refuses."""
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and text.isprintable()
    except ValueError:  # brackets that hold no IPv6 address, a port beyond 65535
        return False
