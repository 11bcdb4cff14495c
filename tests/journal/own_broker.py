"""One broker that the tests may kill and freeze; it has a second listener that wants TLS and a password."""

import contextlib
import subprocess

from tests import kafka_broker

USERS = {"PLAIN": ("alice", "plain-secret"), "SCRAM-SHA-256": ("bob", "scram-secret")}


def certificate(folder):
    """A key store for the broker, and its certificate in PEM, which is its own authority."""
    store, pem = folder / "broker.p12", folder / "broker.pem"
    common = ["-alias", "broker", "-keystore", str(store), "-storepass", "changeit"]
    make = ["-genkeypair", "-keyalg", "RSA", "-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-validity", "2"]
    subprocess.run(["keytool", *make, *common, "-storetype", "PKCS12"], check=True, capture_output=True)
    subprocess.run(["keytool", "-exportcert", "-rfc", "-file", str(pem), *common], check=True, capture_output=True)
    return store, pem


@contextlib.contextmanager
def own_broker(store, port):
    """The broker; its secure listener at that port. Raises NoBroker."""
    modules, (bob, secret) = "org.apache.kafka.common.security", USERS["SCRAM-SHA-256"]
    plain = f'{modules}.plain.PlainLoginModule required user_{USERS["PLAIN"][0]}="{USERS["PLAIN"][1]}";'
    extra = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
        "sasl.enabled.mechanisms": ",".join([*USERS, "OAUTHBEARER"]),
        # Kafka's own validator for tests: it believes a token that nobody has signed
        "listener.name.secure.oauthbearer.sasl.jaas.config": f'{modules}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
        "listener.name.secure.plain.sasl.jaas.config": plain,
        "listener.name.secure.scram-sha-256.sasl.jaas.config": f"{modules}.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": "changeit",
        # without verification a record may come late, behind the end of its transaction: that is how one hangs
        "transaction.partition.verification.enable": "false",
    }
    scram = ["--add-scram", f"SCRAM-SHA-256=[name={bob},password={secret}]"]
    with kafka_broker.jvm(listeners={"SECURE": port}, extra=extra, formatting=scram) as node:
        yield node
