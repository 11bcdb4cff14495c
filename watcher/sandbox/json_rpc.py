"""JSON-RPC 2.0 as the simulated nodes speak it: what they refuse, and with which code."""

from typing import Any

import msgspec

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603


class RpcError(Exception):
    """The node refuses a call, with this code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class RpcCall(msgspec.Struct):
    """One call over a websocket, where it is a whole one."""

    jsonrpc: str
    method: str
    id: str | int
    params: list[Any] | dict[str, Any] = []


def decode_call(text: str | bytes) -> RpcCall:
    """Raises RpcError for what is no call; a batch is none."""
    try:
        call = msgspec.json.decode(text, type=RpcCall)
    except msgspec.ValidationError as error:
        raise RpcError(INVALID_REQUEST, f"Invalid request: {error}") from None
    except (ValueError, RecursionError):
        raise RpcError(PARSE_ERROR, "Parse error") from None
    if call.jsonrpc != "2.0":
        raise RpcError(INVALID_REQUEST, "Invalid request: jsonrpc is not 2.0")
    return call


def result_frame(result: Any, call: str | int) -> str:
    return _text({"jsonrpc": "2.0", "result": result, "id": call})


def error_frame(error: RpcError, call: str | int | None) -> str:
    return _text({"jsonrpc": "2.0", "error": {"code": error.code, "message": str(error)}, "id": call})


def notification_frame(method: str, params: dict[str, Any]) -> str:
    return _text({"jsonrpc": "2.0", "method": method, "params": params})


def _text(message: dict[str, Any]) -> str:
    return msgspec.json.encode(message).decode()
