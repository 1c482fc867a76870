"""TLS with a private certificate: accepted when named, refused when not, over REST and gRPC."""

import datetime
import http.server
import ipaddress
import ssl
import threading
from concurrent import futures
from types import SimpleNamespace

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.client import NotFound, ServerUnavailable, ServingClient
from serving.client.grpc import GrpcServingClient


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    cert_pem = made.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "cert.pem").write_bytes(cert_pem)
    (folder / "key.pem").write_bytes(key_pem)
    return SimpleNamespace(cert=folder / "cert.pem", key=folder / "key.pem", cert_pem=cert_pem, key_pem=key_pem)


class AlwaysNotFound(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        body = b'{"error": "no such model here"}'
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def rest_url(certificate):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), AlwaysNotFound)
    server.handle_error = lambda *_: None  # a refused handshake is part of the test
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def grpc_url(certificate):
    def refuse(request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "no such model here")

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.method_handlers_generic_handler(
        "tensorflow.serving.ModelService", {"GetModelStatus": grpc.unary_unary_rpc_method_handler(refuse)}
    )
    server.add_generic_rpc_handlers((handler,))
    credentials = grpc.ssl_server_credentials([(certificate.key_pem, certificate.cert_pem)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"https://127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.mark.parametrize(("kind", "url_name"), [(ServingClient, "rest_url"), (GrpcServingClient, "grpc_url")])
def test_private_certificate(request, certificate, kind, url_name):
    url = request.getfixturevalue(url_name)
    with (
        kind(url, "ada", "secret-word", verify=str(certificate.cert)) as client,
        pytest.raises(NotFound, match="no such model here"),
    ):
        client.status()
    with kind(url, "ada", "secret-word", retries=0) as client, pytest.raises(ServerUnavailable) as caught:
        client.status()
    assert "secret-word" not in repr(caught.value)


def test_rest_says_what_is_wrong_with_the_certificate(rest_url):
    with ServingClient(rest_url, retries=0) as client, pytest.raises(ServerUnavailable, match="not trusted; verify="):
        client.status()


def test_missing_certificate_file_is_said_at_once(rest_url):
    for kind in (ServingClient, GrpcServingClient):
        with pytest.raises(ValueError, match=r"none\.pem: no such file"):
            kind(rest_url, verify="none.pem")
