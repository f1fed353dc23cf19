"""Bad networks and hostile servers: what comes of them is refused, or gone around, and nothing of it
ends in the mirror."""

import socket
import ssl
import threading
import time

import pytest

from sample_mirror import INDEX_PATH, PRODUCT, PRODUCTS_PATH
from scripted_web import (Authority, Proxy, ScriptedWeb, after, altered, breaking_off, chunked,
                          compressed, content, etag_of, ignore_range, raw, redirect, serve,
                          stalling, status, trickling, wrong_range)
from web import Web, free_port

NEW = "20241018"
INDEX, PRODUCTS = f"{INDEX_PATH}.sjson", f"{PRODUCTS_PATH}.sjson"
ONCE = ("--retries", "0")


@pytest.fixture
def scripted(published):
    """The vendor's mirror behind a scripted server; `image` is what a fetch downloads."""
    web = ScriptedWeb(published.root)
    web.image = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["path"]
    yield web
    web.close()


@pytest.fixture
def got(folder, published, scripted):
    """Checks that the mirror holds the signed image."""
    def check():
        with open(published.path(scripted.image), "rb") as want:
            assert (folder / "mirror" / scripted.image).read_bytes() == want.read()
    return check


# ---- refused ------------------------------------------------------------------------------------

ERROR_PAGE = b"<html><body><h1>It works!</h1></body></html>\n"
SMALL = 64 << 10

REFUSED = {
    # Where a redirect leads.
    "to a file": ("image", redirect("file:///etc/passwd"), 3, "redirected to"),
    "to ftp": ("image", redirect("ftp://127.0.0.1/x"), 3, "redirected to"),
    "index to a file": ("index", redirect("file:///etc/passwd"), 3, "redirected to"),
    "to nowhere": ("image", redirect("http://127.0.0.1:1/x"), 3, "127.0.0.1"),
    # What the server says.
    "404": ("image", status(404), 3, "404"),
    "403": ("image", status(403), 3, "403"),
    "500": ("image", status(500), 3, "500"),
    "503": ("products", status(503), 3, "503"),
    "304": ("image", status(304, b""), 3, "304"),
    "no HTTP": ("image", raw(b"SSH-2.0-OpenSSH_9.2\r\n"), 3, "does not speak HTTP"),
    "nothing at all": ("image", raw(b""), 3, ""),
    "endless headers": ("image", raw(b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"x" * 1000000), 3,
                        "header without end"),
    # What it sends.
    "short": ("image", altered(lambda data: data[:-1]), 3, "bytes"),
    "long": ("image", altered(lambda data: data + b"x"), 5, "bytes"),
    "short, chunked": ("image", chunked(lambda data: data[:-1]), 3, "ended after"),
    "long, chunked": ("image", chunked(lambda data: data + b"x"), 5, "more than"),
    "chunks without end": ("image", chunked(end=b""), 3, ""),
    "endless": ("image", chunked(lambda data: data * 40), 5, "more than"),
    "one bit": ("image", altered(lambda data: data[:-9] + b"evil" + data[-5:]), 5, "checksum"),
    "cut off": ("image", breaking_off(SMALL), 3, ""),
    "reset": ("image", breaking_off(SMALL, reset=True), 3, ""),
    "error page": ("image", content(ERROR_PAGE), 3, "bytes"),
    "error page for the index": ("index", content(ERROR_PAGE), 4, "is not signed"),
    "error page for products": ("products", content(ERROR_PAGE), 4, "is not signed"),
    "empty index": ("index", content(b""), 4, "is not signed"),
    "gzip nobody asked for": ("image", compressed(), 3, "Content-Encoding"),
    "gzip without end": ("index", compressed(lambda data: bytes(80 << 20)), 6, "more than"),
    "what gzip is not": ("index", content(b"x" * 99, Content_Encoding="gzip"), 3, ""),
}


@pytest.mark.parametrize("file, behaviour, code, words", REFUSED.values(), ids=REFUSED.keys())
def test_refused(scripted, refuses, file, behaviour, code, words):
    name = {"index": INDEX, "products": PRODUCTS, "image": scripted.image}[file]
    scripted.script[name] = [behaviour, ...]
    result = refuses(words, *ONCE, "release=noble", source=scripted.url, code=code)
    assert result.code in (3, 4, 5, 6)
    assert len(scripted.requests(name)) <= 2


def test_error_page_of_the_right_size(scripted, published, refuses):
    size = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["size"]
    scripted.script[scripted.image] = [content(ERROR_PAGE.ljust(size))]
    refuses("checksum", *ONCE, "release=noble", source=scripted.url, code=5)


def test_redirect_loop(scripted, refuses):
    scripted.script[scripted.image] = [redirect(scripted.url + scripted.image), ...]
    refuses("10 redirects", *ONCE, "release=noble", source=scripted.url, code=3)
    assert len(scripted.requests(scripted.image)) == 11


def test_redirects_are_followed(scripted, fetch, got, published):
    """Within http and to another server, which gets no password."""
    other = ScriptedWeb(published.root)
    scripted.script[INDEX] = [redirect("/again/../" + INDEX)]
    scripted.script[scripted.image] = [redirect(other.url + scripted.image, 307)]
    source = scripted.url.replace("://", "://joe:secret@")
    fetch("--no-bundle", "release=noble", source=source)
    got()
    asked = scripted.requests(scripted.image) + other.requests(scripted.image)
    assert ["Authorization" in request.headers for request in asked] == [True, False]
    other.close()


STALLS = {
    "nothing comes": stalling(),
    "stops in the middle": stalling(100),
    "a byte now and then": trickling(),
}


@pytest.mark.parametrize("file", ["index", "image"])
@pytest.mark.parametrize("behaviour", STALLS.values(), ids=STALLS.keys())
def test_stall(scripted, refuses, behaviour, file):
    scripted.script[INDEX if file == "index" else scripted.image] = [behaviour, ...]
    refuses(scripted.url, *ONCE, "--stall-time", "1", "release=noble", source=scripted.url, code=3)


def test_time_is_up(scripted, refuses):
    scripted.script[scripted.image] = [stalling(100), ...]
    refuses("", *ONCE, "--max-time", "1", "release=noble", source=scripted.url, code=3)


def test_nobody_there(published, refuses):
    refuses("127.0.0.1", *ONCE, "release=noble", source="http://127.0.0.1:1/", code=3)


def test_nobody_of_that_name(published, refuses):
    refuses("server.invalid", *ONCE, "release=noble", source="http://server.invalid/", code=3)


def test_a_silent_name_server(published, refuses, folder):
    """Who asks it waits for minutes; the run does not."""
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
    mount = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf; exec "$@"',
             folder / "resolv.conf")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 53))
        refuses("--max-time (1 s)", *ONCE, "--max-time", "1", "release=noble", code=3,
                source="http://mirror.example/", wrap=mount, timeout=60)
        assert silent.recv(512, socket.MSG_DONTWAIT)


def test_a_server_that_never_answers(published, refuses):
    """The connection is taken by the kernel, and that is all."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        refuses(url, *ONCE, "--stall-time", "1", "release=noble", source=url, code=3)


# ---- taken up -----------------------------------------------------------------------------------


def test_the_next_run_goes_on(scripted, fetch, got):
    """Asks for the rest alone, and only if the file is still the same."""
    scripted.script[scripted.image] = [breaking_off(SMALL, reset=True)]
    fetch(*ONCE, "--no-bundle", "release=noble", source=scripted.url, code=3)
    fetch("--no-bundle", "release=noble", source=scripted.url)
    got()
    first, second = scripted.requests(scripted.image)
    assert "Range" not in first.headers
    assert second.headers["Range"] == f"bytes={first.sent}-"
    with open(f"{scripted.root}/{scripted.image}", "rb") as file:
        whole = file.read()
    assert second.headers["If-Range"] == etag_of(whole)
    assert first.sent + second.sent == len(whole)


@pytest.mark.parametrize("answer", [
    ignore_range,
    wrong_range("bytes 0-9/10"),
    wrong_range("bytes 5-99999999/100000000", skip=5),
    wrong_range("pages 5-9/10", skip=5),
    wrong_range("", skip=5),
    status(416),
], ids=["200", "from the start", "other bytes", "other units", "none", "416"])
def test_a_range_that_was_not_asked_for(scripted, fetch, got, answer):
    """Whatever comes, it is not put behind what is there: the file is read from its start."""
    scripted.script[scripted.image] = [breaking_off(SMALL), answer]
    fetch(*ONCE, "--no-bundle", "release=noble", source=scripted.url, code=3)
    fetch("--no-bundle", "release=noble", source=scripted.url)
    got()


def test_a_range_that_lies(scripted, fetch, got):
    """The head says what was asked for, the bytes are others: one more try, from the start."""
    with open(f"{scripted.root}/{scripted.image}", "rb") as file:
        size = len(file.read())
    lie = wrong_range(f"bytes {SMALL}-{size - 1}/{size}", skip=SMALL)
    scripted.script[scripted.image] = [
        breaking_off(SMALL, data=b"x" * size), lambda exchange: lie(exchange)]
    fetch(*ONCE, "--no-bundle", "release=noble", source=scripted.url, code=3)
    fetch("--no-bundle", "release=noble", source=scripted.url)
    got()
    assert "Range" not in scripted.requests(scripted.image)[-1].headers


def test_the_file_changed_between_two_runs(scripted, published, fetch, got):
    """The first run got another file: with its ETag in If-Range, the second gets the whole new one."""
    size = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["size"]
    older = b"o" * size
    scripted.script[scripted.image] = [breaking_off(SMALL, data=older)]
    fetch(*ONCE, "--no-bundle", "release=noble", source=scripted.url, code=3)
    fetch("--no-bundle", "release=noble", source=scripted.url)
    got()
    _, second = scripted.requests(scripted.image)
    assert second.headers["If-Range"] == etag_of(older) and second.sent == size


def test_a_finished_image_is_not_asked_for_again(scripted, published, fetch, make_image, folder):
    """One of two breaks off; the other is complete, and stays."""
    other = published.add_image(NEW, make_image("c"), "com.ubuntu.cloud:server:22.04:amd64",
                                release="jammy", number="22.04")["path"]
    published.write()
    scripted.script[scripted.image] = [breaking_off(SMALL)]
    fetch(*ONCE, "--no-bundle", source=scripted.url, code=3)
    assert (folder / "mirror" / other).exists()
    fetch("--no-bundle", source=scripted.url)
    assert len(scripted.requests(other)) == 1 and len(scripted.requests(scripted.image)) == 2


# ---- at once -------------------------------------------------------------------------------------


@pytest.fixture
def four(scripted, published, make_image):
    """The paths of four images, each of another product."""
    paths = [published.add_image(NEW, make_image(name), f"org.example:{name}:amd64",
                                 release=name)["path"] for name in "abcd"]
    published.write()
    return paths


def test_several_at_once(scripted, four, fetch, folder):
    """No answer begins before three are asked for."""
    together = threading.Barrier(3)
    for path in four[:3]:
        scripted.script[path] = [after(lambda: together.wait(timeout=20))]
    fetch("--jobs", "3", "--no-bundle", "product_name~example", source=scripted.url)
    assert not together.broken
    assert all((folder / "mirror" / path).exists() for path in four)


def test_one_at_a_time(scripted, four, fetch):
    running, most = [], []

    def count(exchange):
        running.append(exchange)
        most.append(len(running))
        time.sleep(0.05)
        serve(exchange)
        running.pop()

    for path in four:
        scripted.script[path] = [count]
    fetch("--jobs", "1", "--no-bundle", "product_name~example", source=scripted.url)
    assert most == [1, 1, 1, 1]


def test_one_fails_and_the_others_go_on(scripted, four, fetch, folder):
    """The error is of the first that failed; what did not fail is kept, and no bundle is made."""
    scripted.script[four[1]] = [status(404), ...]
    result = fetch(*ONCE, "-o", folder / "b.tar.zst", "product_name~example", source=scripted.url,
                   code=3)
    assert four[1].encode() in result.err
    assert [(folder / "mirror" / path).exists() for path in four] == [True, False, True, True]
    assert not [path for path in folder.iterdir() if ".tar.zst" in path.name]


# ---- tried again --------------------------------------------------------------------------------

TRANSIENT = {
    "reset": breaking_off(SMALL, reset=True),
    "nothing at all": raw(b""),
    "500": status(500),
    "429": status(429, Retry_After="1"),
    "503, with a date": status(503, Retry_After="Fri, 04 Oct 2024 09:30:00 GMT"),
}


@pytest.mark.parametrize("file, behaviour",
                         [("image", behaviour) for behaviour in TRANSIENT.values()]
                         + [("index", status(503)), ("products", breaking_off(100))],
                         ids=[*TRANSIENT.keys(), "index", "products"])
def test_tried_again(scripted, fetch, got, file, behaviour):
    name = {"index": INDEX, "products": PRODUCTS, "image": scripted.image}[file]
    scripted.script[name] = [behaviour]
    fetch("--retries", "1", "--no-bundle", "release=noble", source=scripted.url)
    got()
    assert len(scripted.requests(name)) == 2


def test_a_second_try_goes_on(scripted, fetch, got):
    scripted.script[scripted.image] = [breaking_off(SMALL)]
    fetch("--retries", "1", "--no-bundle", "release=noble", source=scripted.url)
    got()
    assert scripted.requests(scripted.image)[1].headers["Range"] == f"bytes={SMALL}-"


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451, 501])
def test_not_tried_again(scripted, fetch, code):
    scripted.script[scripted.image] = [status(code), ...]
    fetch("--retries", "3", "--no-bundle", "release=noble", source=scripted.url, code=3)
    assert len(scripted.requests(scripted.image)) == 1


def test_tries_end(scripted, fetch):
    scripted.script[scripted.image] = [status(502), ...]
    fetch("--retries", "1", "--no-bundle", "release=noble", source=scripted.url, code=3)
    assert len(scripted.requests(scripted.image)) == 2


def test_a_server_that_wants_to_be_left_alone_for_long(scripted, refuses):
    scripted.script[INDEX] = [status(503, Retry_After="86400"), ...]
    refuses("", "--retries", "2", "--max-time", "1", "release=noble", source=scripted.url, code=3)


# ---- a source that changes under the fetch ------------------------------------------------------


def other_stream(stream):
    stream["content_id"] = "com.ubuntu.cloud:daily:download"


def test_products_swapped(scripted, published, fetch, got):
    """Read once more, the source is whole again."""
    published.write(change=other_stream)
    scripted.script[INDEX] = [serve, after(published.write)]
    fetch("--no-bundle", "release=noble", source=scripted.url)
    got()
    assert len(scripted.requests(INDEX)) == len(scripted.requests(PRODUCTS)) == 2


def test_products_swapped_for_good(scripted, published, refuses):
    published.write(change=other_stream)
    refuses("com.ubuntu.cloud:daily:download", *ONCE, "release=noble", source=scripted.url, code=5)
    assert len(scripted.requests(INDEX)) == 2


def test_the_image_is_replaced(scripted, published, make_image, refuses):
    """The vendor overwrites a file that it has signed otherwise."""
    with open(make_image("c"), "rb") as file:
        scripted.script[scripted.image] = [content(file.read()), ...]
    refuses("", *ONCE, "release=noble", source=scripted.url, code=None)


# ---- Content-Encoding ---------------------------------------------------------------------------


def test_streams_may_travel_compressed(scripted, fetch, got):
    scripted.script[INDEX] = scripted.script[PRODUCTS] = [compressed(), ...]
    fetch("--no-bundle", "release=noble", source=scripted.url)
    got()
    assert "gzip" in scripted.requests(INDEX)[0].headers["Accept-Encoding"]
    assert "Accept-Encoding" not in scripted.requests(scripted.image)[0].headers


# ---- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(work):
    return Authority(work / "authority", "Sample Authority")


@pytest.fixture
def secure(published):
    """secure(certificate): the vendor's mirror over TLS, at https://localhost."""
    servers = []

    def start(certificate, **options):
        web = ScriptedWeb(published.root, certificate, host="localhost", **options)
        web.image = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["path"]
        servers.append(web)
        return web

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def good(authority):
    return authority.certificate("good", "DNS:localhost")


def test_tls(secure, authority, good, fetch, folder):
    web = secure(good)
    fetch("--cacert", authority.file, "--no-bundle", "release=noble", source=web.url)
    assert (folder / "mirror" / web.image).exists()


def test_http_2(published, authority, good, folder, fetch):
    """With a server that speaks it, over TLS."""
    port = free_port()
    web = Web(folder / "nginx", published.root,
              f"listen 127.0.0.1:{port} ssl http2; ssl_certificate {good}; ssl_certificate_key {good};")
    fetch("--cacert", authority.file, "--no-bundle", "release=noble",
          source=f"https://localhost:{port}/")
    assert [answer.protocol for answer in web.answers()] == ["HTTP/2.0"] * 3
    web.close()


def test_authority_from_the_environment(secure, authority, good, fetch, folder):
    web = secure(good)
    fetch("--no-bundle", "release=noble", source=web.url, env={"SSL_CERT_FILE": authority.file})
    assert (folder / "mirror" / web.image).exists()


def test_unknown_authority(secure, authority, good, refuses, folder):
    web = secure(good)
    refuses("certificate", *ONCE, "release=noble", source=web.url, code=3)
    other = Authority(folder / "other", "Sample Authority")
    refuses("certificate", *ONCE, "--cacert", other.file, "release=noble", source=web.url, code=3)
    assert web.log == []


def test_expired_certificate(secure, authority, refuses):
    web = secure(authority.certificate("expired", "DNS:localhost", ("-days", "-1")))
    refuses("expired", *ONCE, "--cacert", authority.file, "release=noble", source=web.url, code=3)


def test_certificate_of_another_host(secure, authority, refuses):
    web = secure(authority.certificate("other", "DNS:other.example.org"))
    refuses("localhost", *ONCE, "--cacert", authority.file, "release=noble", source=web.url, code=3)


CARELESS = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = careless
[careless]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
"""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls(secure, authority, good, refuses, folder):
    """The server can do no better than TLS 1.1, which the machine's own configuration would allow."""
    web = secure(good, newest=ssl.TLSVersion.TLSv1_1)
    (folder / "openssl.cnf").write_text(CARELESS)
    refuses("", *ONCE, "--cacert", authority.file, "release=noble", source=web.url, code=3,
            env={"OPENSSL_CONF": folder / "openssl.cnf"})
    assert web.log == []


@pytest.mark.parametrize("file", ["index", "image"])
def test_https_to_http(secure, scripted, authority, good, refuses, file):
    web = secure(good)
    name = INDEX if file == "index" else web.image
    web.script[name] = [redirect(scripted.url + name), ...]
    refuses("from https to http", *ONCE, "--cacert", authority.file, "release=noble",
            source=web.url, code=3)
    assert scripted.log == []


def test_authority_file_is_not_there(secure, good, published, refuses, folder):
    web = secure(good)
    refuses("nothing.pem", *ONCE, "--cacert", folder / "nothing.pem", "release=noble",
            source=web.url, code=None)


# ---- proxies ------------------------------------------------------------------------------------


@pytest.fixture
def proxy():
    server = Proxy()
    yield server
    server.close()


def test_http_proxy(scripted, proxy, fetch, got):
    """The server's name is the proxy's to look up."""
    url = scripted.url
    fetch("--no-bundle", "release=noble", source=url, env={"http_proxy": proxy.url})
    got()
    names = [name.replace("%3A", ":") for name in proxy.log]
    assert names == [url + name for name in (INDEX, PRODUCTS, scripted.image)]


def test_https_proxy(secure, authority, good, proxy, fetch, folder):
    """A tunnel: the proxy sees where to, and no more."""
    web = secure(good)
    fetch("--cacert", authority.file, "--no-bundle", "release=noble", source=web.url,
          env={"https_proxy": proxy.url})
    assert (folder / "mirror" / web.image).exists()
    assert proxy.log and set(proxy.log) == {f"localhost:{web.port}"}


@pytest.mark.parametrize("env", [
    {"http_proxy": "PROXY", "no_proxy": "127.0.0.1"},
    {"http_proxy": "PROXY", "no_proxy": "*"},
    {"http_proxy": "PROXY", "NO_PROXY": "example.org,127.0.0.1"},
    {"https_proxy": "PROXY"},
    {"HTTP_PROXY": "PROXY"},  # a web server's CGI would set this one for its client
], ids=lambda env: " ".join(f"{name}={value}" for name, value in env.items()))
def test_no_proxy(scripted, proxy, fetch, got, env):
    env = {name: value.replace("PROXY", proxy.url) for name, value in env.items()}
    fetch("--no-bundle", "release=noble", source=scripted.url, env=env)
    got()
    assert proxy.log == []


def test_all_proxy(scripted, proxy, fetch, got):
    fetch("--no-bundle", "release=noble", source=scripted.url, env={"all_proxy": proxy.url})
    got()
    assert len(proxy.log) == 3


@pytest.mark.parametrize("url", [
    "http://joe:hush@127.0.0.1:99999",
    "http://joe:hush",
    "http://joe:hu/sh@127.0.0.1:8080",
    "socks9://joe:hush@127.0.0.1:9",
    "http://joe:hush" + "x" * 500 + "@127.0.0.1:9 9",
])
def test_a_proxys_password_stays_with_it(scripted, refuses, url):
    result = refuses("proxy", *ONCE, "--json", "release=noble", source=scripted.url, code=3,
                     env={"http_proxy": url})
    assert b"hu" not in result.err + result.out


def test_proxy_is_down(scripted, refuses):
    refuses("", *ONCE, "release=noble", source=scripted.url, code=3,
            env={"http_proxy": "http://127.0.0.1:1"})
    assert scripted.log == []
