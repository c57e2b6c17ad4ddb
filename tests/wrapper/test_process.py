"""What a wrapper's process asks of Python and of the C library."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest

from tests.wrapper.conftest import PYTHON, ROOT

FRAMES = """
import gc, resource, sys
from wrapper.process import HANDOVER_S, settle
if sys.argv[1] == "settled":
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    settle()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 500, "it touched what it gave back"
    assert sys.getswitchinterval() == HANDOVER_S and gc.get_freeze_count() > 1000
def frame():
    text = b"x" * (512 << 10)
    return bytearray(text) + text
for _ in range(10):
    frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    frame()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has ways of its own")
def test_frames_are_not_mapped_anew() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([PYTHON, "-c", FRAMES, how], cwd=ROOT, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("as it is") > 10_000  # the control: each of the 100 costs hundreds
    assert faults("settled") < 2_000


# Of nobody, for a hundred years; its key was never kept.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBejCCAR+gAwIBAgIURNHPVCgMNIuhi0y/++4qTsXJ5sEwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEzMDEwMzI1MloYDzIxMjYxMTA2MTAz
MjUyWjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATugQYJaKWBE5S3/SAnHrAugVofVt+Dgv73FAS2C7JKcpaAh0JPdXU7nNT410bT
3RqiA18QEk0vxFzi4xocmzeYo1MwUTAdBgNVHQ4EFgQUrZi6Bp0hiyGK/bkwzIbN
Ig09oKYwHwYDVR0jBBgwFoAUrZi6Bp0hiyGK/bkwzIbNIg09oKYwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEA3tQt690J5ECqEbAvCgBNWih5O1Ln
CABwkfsECwcqvD4CIQDeuG48vFeLLXKPHf1ZZxaugQ/kbap5LPBvSwfsdQacDA==
-----END CERTIFICATE-----
"""


@pytest.mark.parametrize(("url", "reads"), [("http://127.0.0.1:8420", False), ("https://there.example", True)])
def test_certificates_are_read_by_who_needs_them_and_the_environment_stays(
    url: str, reads: bool, tmp_path: Path
) -> None:
    """SSL_CERT_FILE names one certificate of ours: whether that was read shows in what aiohttp trusts by itself."""
    certificate = tmp_path / "certificate.pem"
    certificate.write_text(CERTIFICATE)
    told = subprocess.run(
        [
            PYTHON,
            "-c",
            "import os, sys; from wrapper.connection import import_aiohttp; import_aiohttp(sys.argv[1]); "
            "import aiohttp.connector as c; "
            "print(c._SSL_CONTEXT_VERIFIED.cert_store_stats()['x509'], os.environ['SSL_CERT_FILE'], "
            "os.environ.get('SSL_CERT_DIR'), c._SSL_CONTEXT_VERIFIED.verify_mode.name)",
            url,
        ],
        env={"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(certificate)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert told == ["1" if reads else "0", str(certificate), "None", "CERT_REQUIRED"]
