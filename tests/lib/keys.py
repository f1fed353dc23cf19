"""OpenPGP keys for the tests, made and used by the real GnuPG in a home folder of their own."""

import os
import subprocess


class Key:
    """The signing key of a GnuPG home folder, without passphrase; made when there is none."""

    def __init__(self, homedir, user_id, algorithm="ed25519", expires="never", options=()):
        self.homedir = str(homedir)
        self.options = list(options)
        os.makedirs(self.homedir, mode=0o700, exist_ok=True)
        self.fingerprint = self._find()
        if not self.fingerprint:
            self.gpg("--passphrase", "", "--quick-gen-key", user_id, algorithm, "sign", expires)
            self.fingerprint = self._find()

    def gpg(self, *args, data=None):
        """Runs gpg in this key's home folder and returns what it prints."""
        command = ["gpg", "--homedir", self.homedir, "--batch", "--yes", "--quiet",
                   "--pinentry-mode", "loopback", *self.options, *args]
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def _find(self):
        for line in self.gpg("--with-colons", "--list-secret-keys").decode().splitlines():
            if line.startswith("fpr:"):
                return line.split(":")[9]
        return None

    def export(self, path, *, armor=False):
        """Writes the public key to a keyring file and returns its path."""
        with open(path, "wb") as out:
            out.write(self.gpg(*(["--armor"] if armor else []), "--export", self.fingerprint))
        return str(path)

    def clearsign(self, text, *options):
        return self.gpg(*options, "--local-user", self.fingerprint, "--clearsign", data=text)

    def detach_sign(self, data, *options):
        return self.gpg(*options, "--local-user", self.fingerprint, "--armor", "--detach-sign",
                        data=data)

    def close(self):
        """Ends the agent that GnuPG started for this home folder."""
        subprocess.run(["gpgconf", "--homedir", self.homedir, "--kill", "all"], check=False,
                       capture_output=True)
