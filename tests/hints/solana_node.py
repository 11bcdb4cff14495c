"""A Solana node as far as its pubsub goes, by its documents and by how Agave gives numbers: without any I/O."""

import itertools
import json

LOGS = ["Program 11111111111111111111111111111111 invoke [1]", "Program 11111111111111111111111111111111 success"]


class SolanaNode:
    """Answers requests; `account_changed` and `transaction` give the notifications. `refuses`: requests for which it has
    an error."""

    def __init__(self, *, refuses=lambda _method, _address: False, most=10**9):
        self.numbers = {}
        """Number → method, address, commitment. Equal requests have one number, as at Agave."""
        self.asked = []
        self.most_at_once = 0
        self.refuses = refuses
        self.most = most
        self._next = itertools.count(23784)

    def answer(self, text):
        call = json.loads(text)
        assert call["jsonrpc"] == "2.0"
        method, params = call["method"], call["params"]
        self.asked.append((method, params))
        if method.endswith("Unsubscribe"):
            known = self.numbers.pop(params[0], None)
            if known is None:
                return self._error(call, -32602, "Invalid subscription id.")
            assert method == f"{known[0]}Unsubscribe"
            return {"jsonrpc": "2.0", "result": True, "id": call["id"]}
        if method == "accountSubscribe":
            (address, options), kind = params, "account"
            assert options["encoding"] == "base64"
        else:
            assert method == "logsSubscribe"
            which, options = params
            (address,), kind = which["mentions"], "logs"
        assert options["commitment"] in ("processed", "confirmed", "finalized")
        request = (kind, address, options["commitment"])
        found = next((number for number, known in self.numbers.items() if known == request), None)
        if self.refuses(kind, address) or (found is None and len(self.numbers) >= self.most):
            return self._error(call, -32005, "Too many subscriptions")
        number = next(self._next) if found is None else found
        self.numbers[number] = request
        self.most_at_once = max(self.most_at_once, len(self.numbers))
        return {"jsonrpc": "2.0", "result": number, "id": call["id"]}

    def account_changed(self, address):
        """Notifications: one for each subscription."""
        for number, (kind, account, _) in self.numbers.items():
            if (kind, account) == ("account", address):
                value = {
                    "data": ["", "base64"],
                    "executable": False,
                    "lamports": 33594,
                    "owner": "11111111111111111111111111111111",
                    "rentEpoch": 635,
                    "space": 80,
                }
                yield self._notification("accountNotification", number, value)

    def transaction(self, *addresses, err=None):
        for number, (kind, account, _) in self.numbers.items():
            if kind == "logs" and account in addresses:
                signature = "5h6xBEauJ3PK6SWCZ1PGjBvj8vDdWG3KpwATGy1ARAXFSDwt8GFXM7W5Ncn16wmqokgpiKRLuS83KUxyZyv2sUYv"
                yield self._notification("logsNotification", number, {"signature": signature, "err": err, "logs": LOGS})

    def requests(self):
        return sorted(self.numbers.values())

    @staticmethod
    def _notification(method, number, value):
        result = {"context": {"slot": 5199307}, "value": value}
        params = {"result": result, "subscription": number}
        return json.dumps({"jsonrpc": "2.0", "method": method, "params": params})

    @staticmethod
    def _error(call, code, message):
        return {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": call["id"]}


def talk(channel, node, *, rounds=10_000):
    """Until nothing more is asked for. Gives what was refused."""
    refused = []
    for _ in range(rounds):
        messages = channel.outgoing()
        if not messages:
            return refused
        for message in messages:
            news = channel.received(json.dumps(node.answer(message)))
            assert not news.hints
            refused += [] if news.refused is None else [news.refused]
    raise AssertionError("it never stops asking")
