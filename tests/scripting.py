"""Servers on loopback that say what a test wrote down, whatever they are asked."""

import contextlib
import socket
import threading


@contextlib.contextmanager
def scripted(*answers, tls=None):
    """An endpoint that gives each connection the next answer, whatever it asks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for answer in answers:
                with contextlib.suppress(OSError):
                    client, _ = listener.accept()
                    with tls.wrap_socket(client, server_side=True) if tls else client as client:
                        client.recv(65536)
                        client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def http(status, headers=(), body=b""):
    lines = [f"HTTP/1.1 {status}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
