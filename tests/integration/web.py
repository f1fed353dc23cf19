"""A real web server on loopback: nginx with a configuration of its own."""

import os
import signal
import socket
import subprocess
import time
import urllib.parse

CONFIG = """
daemon off;
user root;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections 64; }}
http {{
    types {{ }}
    default_type application/octet-stream;
    log_format times '"$request" $status $body_bytes_sent $msec $request_time';
    access_log {dir}/access.log times;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        {options}
    }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Answer:
    """A line of the log. `began` is a time as of time.time()."""

    def __init__(self, line):
        request, rest = line[1:].split('" ', 1)
        _, path, self.protocol = request.split()
        self.path = urllib.parse.unquote(path).lstrip("/")
        self.status, self.sent = (int(word) for word in rest.split()[:2])
        ended, lasted = (float(word) for word in rest.split()[2:])
        self.began = ended - lasted

    def __repr__(self):
        return f"{self.path}: {self.status}, {self.sent} bytes at {self.began}"


class Web:
    """Serves `root`; `url` ends with a slash. `options` are directives of nginx's server block."""

    def __init__(self, work, root, options=""):
        self.work, self.root = str(work), str(root)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        os.makedirs(self.work, exist_ok=True)
        config = os.path.join(self.work, "nginx.conf")
        with open(config, "w", encoding="utf-8") as out:
            out.write(CONFIG.format(dir=self.work, port=port, root=self.root, options=options))
        self.process = subprocess.Popen(
            ["nginx", "-c", config, "-e", os.path.join(self.work, "error.log")],
            stdin=subprocess.DEVNULL)
        self._wait(port)

    def _wait(self, port):
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, "nginx ended at once"
                time.sleep(0.05)
        raise RuntimeError("nginx does not answer")

    def requests(self):
        """The paths that were asked for, in order."""
        with open(os.path.join(self.work, "access.log"), encoding="utf-8") as log:
            return [line.split('"')[1].split()[1] for line in log if '"GET ' in line]

    def answers(self):
        """What came of the requests that have ended, in the order of their ends."""
        with open(os.path.join(self.work, "access.log"), encoding="utf-8") as log:
            return [Answer(line) for line in log if line.startswith('"GET ')]

    def close(self, how=signal.SIGTERM):
        """SIGQUIT lets nginx finish, and write down, what it has begun."""
        self.process.send_signal(how)
        self.process.wait(timeout=10)
