"""Every module of a signed distribution verifies against its kernel's own certificate; no flipped bit is missed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kobox.cli import main
from kobox.depot.names import is_module_file
from kobox.image import Image
from kobox.ko import decompress
from kobox.sign import BUILTIN, verify_signature
from kobox.sign.files import module_files
from kobox.verdict.host import Host, policy_of_boot
from kobox.verdict.verification import verify_files

pytestmark = pytest.mark.image


@pytest.mark.parametrize("which", ["debian_image", "trixie_image"])
@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.full)])
def test_modules_verify_against_the_kernels_own_certificate(
    which: str, every: int, request: pytest.FixtureRequest
) -> None:
    image: Image = request.getfixturevalue(which)
    assert image.modules is not None
    files = module_files([str(image.modules / "kernel")], is_module_file)[::every]
    host = Host(image, image.release, policy_of_boot(image, ""))
    found = list(verify_files(files, [host]))
    assert len(found) == len(files) > 300
    assert [one.file for one in found if not one.verified] == []
    assert {one.ring for one in found} == {BUILTIN}


@pytest.mark.parametrize("which", ["debian_image", "trixie_image"])
def test_no_flipped_bit_of_a_distributions_module_is_missed(which: str, request: pytest.FixtureRequest) -> None:
    image: Image = request.getfixturevalue(which)
    assert image.modules is not None
    file = next(iter(sorted(image.modules.rglob("loop.ko*"))))
    data = bytes(decompress(file.read_bytes(), "loop.ko"))
    rings = Host(image, image.release, policy_of_boot(image, "")).rings
    assert verify_signature(data, rings).trusted
    content = verify_signature(data, rings).length
    chance = random.Random(0)
    for _ in range(1000):
        at = chance.randrange(content * 8)
        broken = bytearray(data)
        broken[at // 8] ^= 1 << at % 8
        assert not verify_signature(bytes(broken), rings).trusted, at


def test_the_command_names_key_and_ring(debian_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(iter(sorted(debian_root.rglob("loop.ko*"))))
    kernel = next(iter(sorted((debian_root / "boot").glob("vmlinuz-*"))))
    assert main(["verify", "--image", str(kernel), str(file)]) == 0
    assert f" of {BUILTIN}\n" in capsys.readouterr().out
