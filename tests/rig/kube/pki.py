"""Certificates of a test cluster, made by the openssl program."""

from __future__ import annotations

import subprocess
from base64 import b64encode
from pathlib import Path

SERVER = "IP:127.0.0.1,IP:10.43.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"


class Pki:
    """A certificate authority and what it signed, in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self._key("ca")
        self._openssl("req", "-x509", "-key", "ca.key", "-out", "ca.crt", "-days", "30", "-subj", "/CN=test-ca")
        self._openssl("genrsa", "-out", "sa.key", "2048")
        self._openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")

    def sign(self, name: str, subject: str, *, names: str = "", days: int = 30) -> None:
        """Make ``name.key`` and ``name.crt``; ``names`` are subject alternative names of a server."""
        self._key(name)
        self._openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        usage = "extendedKeyUsage=serverAuth,clientAuth\n" + (f"subjectAltName={names}\n" if names else "")
        (self.folder / f"{name}.ext").write_text(usage)
        signing = (
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            str(days),
            "-extfile",
            f"{name}.ext",
        )
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signing)

    def base64(self, file: str) -> str:
        """Return a file's content for a kubeconfig."""
        return b64encode((self.folder / file).read_bytes()).decode()

    def _key(self, name: str) -> None:
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)
