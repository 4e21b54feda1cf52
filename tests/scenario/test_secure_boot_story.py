"""The whole story on the command line: a module that Secure Boot refuses is signed, its key enrolled, and loads; then
not any more."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kobox.cli import main
from kobox.image import Image
from kobox.ko import decompress, split_signature
from needs import need_program
from paths import ROOT

pytestmark = pytest.mark.image
OWNER = ROOT / "tests/data/keys/owner.pem"


class Story:
    """Runs commands in a folder and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        got = main(list(words))
        said = self._capsys.readouterr()
        assert got == code, said.out + said.err
        return said.out + said.err


@pytest.fixture(params=["debian_image", "trixie_image"])
def image(request: pytest.FixtureRequest) -> Image:
    found: Image = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def kernel(image: Image) -> str:
    """The kernel's file."""
    assert image.modules is not None
    root = image.modules.parents[2]
    return str(next(iter((root / "boot").glob(f"vmlinuz-{image.release}"))))


@pytest.fixture
def folder(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module without a signature, the owner's key."""
    assert image.modules is not None
    (found,) = image.modules.rglob("crc7.ko*")
    (tmp_path / "crc7.ko").write_bytes(split_signature(decompress(found.read_bytes(), found.name))[0])
    shutil.copy(OWNER, tmp_path / "MOK.priv")
    need_program("openssl")
    subprocess.run(["openssl", "x509", "-in", OWNER, "-outform", "DER", "-out", tmp_path / "MOK.der"], check=True)
    (tmp_path / "password").write_text("four words at least\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(image.path.parents[1]))
    return tmp_path


def test_from_refused_to_loaded_and_back(
    folder: Path, kernel: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    run = Story(capsys)
    run("mok", "--vars", "machine", "--init", "--trust", kernel)
    said = run("boot", "--name", "story", "--image", kernel, "--vars", "machine", "--picture", "chain.svg")
    request.addfinalizer(lambda: main(["halt", "--session", "story"]))
    assert "Debian Secure Boot Signer 2022 - linux" in said
    assert (folder / "chain.svg").read_text().startswith("<svg")

    assert "Key was rejected by service" in run("insmod", "--session", "story", "crc7.ko", code=1)
    run("sign", "--key", "MOK.priv", "--cert", "MOK.der", "crc7.ko")
    assert "Key was rejected by service" in run("insmod", "--session", "story", "crc7.ko", code=1)
    log = run("dmesg", "--session", "story")
    assert "Loading of unsigned module is rejected" in log
    assert "Loading of module with unavailable key is rejected" in log

    run("mok", "--vars", "machine", "--import", "MOK.der", "--password-file", "password")
    assert "owner key" in run("mok", "--vars", "machine", "--list-new")
    (folder / "wrong").write_text("something else\n")
    assert "the password doesn't match" not in run("mok", "--vars", "machine", "--sb-state")
    said = run("reboot", "--session", "story", "--mok-password-file", "password")
    assert "done  MokManager: Enroll MOK" in said
    assert "MOK.der is already enrolled" in run("mok", "--vars", "machine", "--test-key", "MOK.der", code=1)
    run("insmod", "--session", "story", "crc7.ko")
    assert "crc7" in run("lsmod", "--session", "story")

    run("mok", "--vars", "machine", "--delete", "MOK.der", "--password-file", "password")
    assert "done  MokManager: Delete MOK" in run("reboot", "--session", "story", "--mok-password-file", "password")
    assert "Key was rejected by service" in run("insmod", "--session", "story", "crc7.ko", code=1)


def test_a_wrong_password_enrolls_nothing_and_the_request_is_gone(
    folder: Path, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from kobox.efi.chain import power_on, text_lines

    run = Story(capsys)
    run("mok", "--vars", "machine", "--init", "--trust", kernel)
    run("mok", "--vars", "machine", "--import", "MOK.der", "--password-file", "password")
    chain = power_on("machine", Path(kernel).read_bytes(), "vmlinuz", lambda pending, attempt: "wrong")
    assert "the password doesn't match; the request is gone" in "\n".join(text_lines(chain))
    assert run("mok", "--vars", "machine", "--list-new") == ""
    assert "MOK.der is not enrolled" in run("mok", "--vars", "machine", "--test-key", "MOK.der")


def test_a_kernel_that_was_tampered_with_is_not_started(
    folder: Path, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Story(capsys)
    run("mok", "--vars", "machine", "--init", "--trust", kernel)
    data = bytearray(Path(kernel).read_bytes())
    data[len(data) // 2] ^= 1
    tampered = folder / Path(kernel).name
    tampered.write_bytes(data)
    said = run("boot", "--name", "no", "--image", str(tampered), "--vars", "machine", "--picture", "no.svg", code=1)
    assert "the image was changed after it was signed" in said
    assert "refused" in (folder / "no.svg").read_text()


def test_a_kernel_whose_signer_is_banned_is_not_started(
    folder: Path, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Story(capsys)
    run("mok", "--vars", "machine", "--init", "--trust", kernel)
    run("mok", "--vars", "machine", "--ban", kernel)
    said = run("boot", "--name", "no", "--image", kernel, "--vars", "machine", code=1)
    assert "its hash is in the list of banned images" in said


def test_without_secure_boot_nothing_is_checked(
    folder: Path, kernel: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    run = Story(capsys)
    run("mok", "--vars", "machine", "--init", "--off")
    assert run("mok", "--vars", "machine", "--sb-state") == "SecureBoot disabled\n"
    assert "Secure Boot is off: not checked" in run("boot", "--name", "off", "--image", kernel, "--vars", "machine")
    request.addfinalizer(lambda: main(["halt", "--session", "off"]))
    run("insmod", "--session", "off", "crc7.ko")
