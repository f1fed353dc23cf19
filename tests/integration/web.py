"""A real web server on loopback: nginx with a configuration of its own."""

import os
import socket
import subprocess
import time

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
    access_log {dir}/access.log combined;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Web:
    """Serves `root`; `url` ends with a slash."""

    def __init__(self, work, root):
        self.work, self.root = str(work), str(root)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        os.makedirs(self.work, exist_ok=True)
        config = os.path.join(self.work, "nginx.conf")
        with open(config, "w", encoding="utf-8") as out:
            out.write(CONFIG.format(dir=self.work, port=port, root=self.root))
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

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=10)
