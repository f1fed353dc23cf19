"""A web server on loopback that does what nginx will not: it lies, stalls, breaks off, and writes down
what it was asked. Unless a script says otherwise it serves a folder as a good server does, with ETag,
Range and If-Range.

    web = ScriptedWeb(folder)
    web.script["streams/v1/index.sjson"] = [status(503), serve]     # the first request, the second
    web.script["disk.img"] = [reset(after=1000), ...]               # Ellipsis: and so on

A behaviour is a function that gets the Exchange. Requests behind the end of a script are served.
"""

import gzip
import hashlib
import http.server
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.parse

BLOCK = 64 << 10


class Exchange(http.server.BaseHTTPRequestHandler):
    """One connection; each request goes to the server's script."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self):
        self.name = urllib.parse.unquote(self.path).lstrip("/")
        self.sent = 0
        self.server.web.answer(self)

    def log_message(self, *args):
        """Nothing on standard error."""

    # ---- what behaviours use

    @property
    def body(self):
        """The file that is asked for; None when there is none."""
        try:
            with open(os.path.join(self.server.web.root, self.name), "rb") as file:
                return file.read()
        except OSError:
            return None

    def head(self, status, **headers):
        """Sends the head of an answer; underscores in a name stand for dashes."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def write(self, data):
        self.wfile.write(data)
        self.wfile.flush()
        self.sent += len(data)

    def whole(self, data, status=200, **headers):
        """An answer of the right length."""
        self.head(status, Content_Length=len(data), **headers)
        self.write(data)

    def hang_up(self):
        """The client sees the end of the connection."""
        self.close_connection = True

    def reset(self):
        """The client sees "connection reset by peer"."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()


# ---- behaviours ---------------------------------------------------------------------------------


def etag_of(data):
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


def serve(exchange):
    """What a good server does."""
    data = exchange.body
    if data is None:
        return exchange.whole(b"no such file\n", 404)
    etag = etag_of(data)
    asked = exchange.headers.get("Range", "")
    condition = exchange.headers.get("If-Range", etag)
    if not asked.startswith("bytes=") or condition != etag:
        return exchange.whole(data, ETag=etag, Accept_Ranges="bytes")
    first = int(asked[len("bytes="):].split("-")[0])
    if first >= len(data):
        return exchange.whole(b"", 416, Content_Range=f"bytes */{len(data)}")
    return exchange.whole(data[first:], 206, ETag=etag,
                          Content_Range=f"bytes {first}-{len(data) - 1}/{len(data)}")


def status(code, body=b"sorry\n", **headers):
    return lambda exchange: exchange.whole(body, code, **headers)


def redirect(url, code=302):
    return lambda exchange: exchange.whole(b"", code, Location=url)


def content(data, **headers):
    """These bytes instead of the file's."""
    return lambda exchange: exchange.whole(data, **headers)


def altered(change, **headers):
    """The file's bytes after change(bytes)."""
    return lambda exchange: exchange.whole(change(exchange.body), **headers)


def ignore_range(exchange):
    exchange.whole(exchange.body, ETag=etag_of(exchange.body))


def wrong_range(text, skip=0):
    """206 with this Content-Range, and the file from byte `skip` on."""
    return lambda exchange: exchange.whole(exchange.body[skip:], 206, Content_Range=text)


def breaking_off(after, data=None, reset=False):
    """Announces all, sends `after` bytes."""
    def behave(exchange):
        whole = exchange.body if data is None else data
        exchange.head(200, Content_Length=len(whole), ETag=etag_of(whole))
        exchange.write(whole[:after])
        time.sleep(0.1)  # a reset throws away what is still on its way
        exchange.reset() if reset else exchange.hang_up()
    return behave


def stalling(after=0):
    """Sends `after` bytes and then nothing, until the client has gone."""
    def behave(exchange):
        exchange.head(200, Content_Length=len(exchange.body))
        exchange.write(exchange.body[:after])
        exchange.connection.recv(1)
        exchange.hang_up()
    return behave


def trickling(every=0.01):
    """One byte at a time, until the client has gone."""
    def behave(exchange):
        exchange.head(200, Content_Length=len(exchange.body))
        try:
            for at in range(len(exchange.body)):
                exchange.write(exchange.body[at:at + 1])
                time.sleep(every)
        except OSError:
            pass
        exchange.hang_up()
    return behave


def chunked(change=lambda data: data, end=b"0\r\n\r\n"):
    """No length is announced."""
    def behave(exchange):
        data = change(exchange.body)
        exchange.head(200, Transfer_Encoding="chunked")
        for at in range(0, len(data), BLOCK):
            block = data[at:at + BLOCK]
            exchange.write(b"%x\r\n%s\r\n" % (len(block), block))
        exchange.write(end)
        exchange.hang_up()
    return behave


def compressed(change=lambda data: data):
    """gzip, whether it was asked for or not."""
    return lambda exchange: exchange.whole(gzip.compress(change(exchange.body), 1),
                                           Content_Encoding="gzip")


def raw(data):
    """These bytes in place of HTTP."""
    def behave(exchange):
        exchange.write(data)
        exchange.hang_up()
    return behave


def after(action, then=serve):
    """Does something on the server before it answers."""
    def behave(exchange):
        action()
        then(exchange)
    return behave


# ---- the server ---------------------------------------------------------------------------------


class Request:
    """What was asked, and how many bytes of body went out."""

    def __init__(self, name, headers):
        self.name, self.headers, self.sent = name, headers, 0

    def __repr__(self):
        return f"{self.name} {dict(self.headers)}: {self.sent} bytes"


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that hangs up is nothing to speak of."""


class ScriptedWeb:
    """Serves `root`; `url` ends with a slash. With a certificate (of an Authority) it speaks TLS, by
    the versions from `oldest` to `newest`."""

    def __init__(self, root, certificate=None, *, host="127.0.0.1", newest=None):
        self.root = str(root)
        self.script = {}
        self.log = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), Exchange)
        self._server.web = self
        self.port = self._server.server_address[1]
        self.url = f"{'https' if certificate else 'http'}://{host}:{self.port}/"
        if certificate:
            self._server.socket = tls_context(certificate, newest).wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, exchange):
        request = Request(exchange.name, exchange.headers)
        with self._lock:
            self.log.append(request)
            behaviour = self._next(exchange.name)
        try:
            behaviour(exchange)
        except OSError:
            exchange.hang_up()
        finally:
            request.sent = exchange.sent

    def _next(self, name):
        steps = self.script.get(name, [])
        if steps[1:2] == [...]:
            return steps[0]
        return steps.pop(0) if steps else serve

    def requests(self, name):
        """What was asked about one file, in order."""
        return [request for request in self.log if request.name == name]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


# ---- TLS ----------------------------------------------------------------------------------------


def tls_context(certificate, newest=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if newest is not None:
        # OpenSSL 3 speaks the old versions at its lowest level of security only.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = newest
    context.load_cert_chain(certificate)
    return context


class Authority:
    """A certificate authority of the tests' own; `file` is what clients are given."""

    def __init__(self, folder, name):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        self.file = os.path.join(self.folder, "authority.pem")
        self._key = os.path.join(self.folder, "authority.key")
        openssl("req", "-x509", *NEW_KEY, "-keyout", self._key, "-out", self.file, "-days", "2",
                "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign")

    def certificate(self, name, address, validity=("-days", "1")):
        """A file with key and certificate for an address ("DNS:localhost", "IP:127.0.0.1")."""
        stem = os.path.join(self.folder, name)
        request, extensions = f"{stem}.csr", f"{stem}.ext"
        with open(extensions, "w", encoding="ascii") as out:
            out.write(f"subjectAltName={address}\n")
        openssl("req", *NEW_KEY, "-keyout", f"{stem}.key", "-out", request, "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key,
                "-CAcreateserial", "-out", f"{stem}.crt", "-extfile", extensions, *validity)
        with open(f"{stem}.pem", "wb") as out:
            for part in (f"{stem}.key", f"{stem}.crt", self.file):
                with open(part, "rb") as file:
                    out.write(file.read())
        return f"{stem}.pem"


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


# ---- a proxy ------------------------------------------------------------------------------------


class _ProxyExchange(http.server.BaseHTTPRequestHandler):
    """One request for each connection: what is behind its head is handed on as it comes."""

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        self.server.log.append(self.path)
        head = [f"GET {url.path} HTTP/1.1", f"Host: {url.netloc}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in self.headers.items()
                 if name.lower() in ("range", "if-range", "user-agent", "accept-encoding")]
        self._join(url.hostname, url.port, ("\r\n".join(head) + "\r\n\r\n").encode())

    def do_CONNECT(self):
        self.server.log.append(self.path)
        host, port = self.path.rsplit(":", 1)
        self.send_response(200)
        self.end_headers()
        self._join(host, int(port), b"")

    def _join(self, host, port, first):
        self.close_connection = True
        with socket.create_connection((host, port), timeout=30) as there:
            there.sendall(first)
            back = threading.Thread(target=pump, args=(there, self.connection), daemon=True)
            back.start()
            pump(self.connection, there)
            back.join(timeout=30)

    def log_message(self, *args):
        """Nothing on standard error."""


def pump(source, target):
    """Hands on bytes until one side has enough."""
    try:
        while True:
            data = source.recv(BLOCK)
            if not data:
                break
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Proxy:
    """A forward proxy on loopback; `log` is what it was asked for."""

    def __init__(self):
        self._server = _Server(("127.0.0.1", 0), _ProxyExchange)
        self._server.log = self.log = []
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
