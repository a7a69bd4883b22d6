"""Asks for the version through TLS, then ends the connection as TLS demands, both ways."""
import socket
import ssl
import sys

port, ca, certificate, key = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.check_hostname = False
context.load_cert_chain(certificate, key)
with context.wrap_socket(
    socket.create_connection(("127.0.0.1", int(port)), 20), suppress_ragged_eofs=False
) as tls:
    tls.sendall(b"version\n")
    assert tls.recv(100).startswith(b"OK ")
    tls.unwrap()
    print("a clean end")
