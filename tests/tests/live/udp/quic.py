"""Either end of a QUIC connection, by aioquic: `quic.py server|client PORT`.

The server prints `ready`, sends back what it receives, and ends with its standard input. The client sends once and reads the
answer. Both print what their sockets sent and received.
"""

import asyncio
import datetime
import json
import ssl
import sys
import tempfile

from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
PAYLOAD = b"x" * 100_000
totals = {"packets_sent": 0, "bytes_sent": 0, "packets_received": 0, "bytes_received": 0}


class Counted:
    """A transport that counts what it sends."""

    def __init__(self, inner):
        self.inner = inner

    def sendto(self, data, address=None):
        totals["packets_sent"] += 1
        totals["bytes_sent"] += len(data)
        self.inner.sendto(data, address)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def count_datagrams(loop):
    """Counts the datagrams of all endpoints that the loop makes from now on."""
    make = loop.create_datagram_endpoint

    async def counted(factory, *arguments, **options):
        def protocol():
            own = factory()
            made, received = own.connection_made, own.datagram_received

            def receive(data, address):
                totals["packets_received"] += 1
                totals["bytes_received"] += len(data)
                received(data, address)

            own.connection_made = lambda transport: made(Counted(transport))
            own.datagram_received = receive
            return own

        return await make(protocol, *arguments, **options)

    loop.create_datagram_endpoint = counted


def self_signed():
    """A configuration with a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    with tempfile.NamedTemporaryFile() as chain, tempfile.NamedTemporaryFile() as secret:
        chain.write(certificate.public_bytes(serialization.Encoding.PEM))
        secret.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        chain.flush()
        secret.flush()
        configuration.load_cert_chain(chain.name, secret.name)
    return configuration


def echo(reader, writer):
    async def answer():
        writer.write(await reader.read())
        writer.write_eof()

    asyncio.ensure_future(answer())


async def run_server(port):
    server = await serve(HOST, port, configuration=self_signed(), stream_handler=echo)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


async def run_client(port):
    configuration = QuicConfiguration(alpn_protocols=["echo"], verify_mode=ssl.CERT_NONE)
    async with connect(HOST, port, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        writer.write(PAYLOAD)
        writer.write_eof()
        assert await reader.read() == PAYLOAD


async def main():
    count_datagrams(asyncio.get_running_loop())
    run = {"server": run_server, "client": run_client}[sys.argv[1]]
    await run(int(sys.argv[2]))
    # The loop closes the sockets in its next rounds.
    for _ in range(3):
        await asyncio.sleep(0)


asyncio.run(main())
print(json.dumps(totals), flush=True)
