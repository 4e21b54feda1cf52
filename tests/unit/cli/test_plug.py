"""``kobox plug`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kobox.cli import main
from paths import EXAMPLES
from schemas import problems_of_command

pytestmark = pytest.mark.image


def test_each_hop_is_shown(kobox_image: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    assert main(["plug", "--image", kobox_image, f"disk:{disk}"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"disk:{disk} at 0000:00:01.0"
    assert shown[1] == "  pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00"
    assert shown[2].startswith("    -> virtio_pci (loaded: ")
    assert shown[3:7] == [
        "    -> virtio-pci",
        "  virtio:d00000002v00001AF4",
        "    -> virtio_blk (loaded: virtio_blk)",
        "    -> virtio_blk",
    ]
    assert shown[7] == "  /dev/vda"
    assert any("[vda] 2048 512-byte logical blocks" in line for line in shown)


def test_records_are_as_the_schema_says(kobox_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = str(EXAMPLES / "edu.ko")
    assert main(["plug", "--json", "--image", kobox_image, "--module", module, "edu", "virtio-rng"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert problems_of_command(found, "plug") == []
    edu, rng = found
    assert (edu["drivers"], edu["nodes"]) == (["kobox_edu"], ["/dev/kobox_edu"])
    assert rng["drivers"] == ["virtio-pci", "virtio_rng"]


def test_a_device_that_no_driver_takes_ends_with_one(kobox_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plug", "--image", kobox_image, "pci:8086:1533"]) == 1
    shown = capsys.readouterr().out
    assert "-> igb (loaded: i2c_algo_bit dca igb)" in shown
    assert "-> no driver took it" in shown
    assert "igb: probe of 0000:00:01.0 failed with error" in shown


def test_without_a_probe_no_module_is_loaded(kobox_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plug", "--no-probe", "--json", "--image", kobox_image, "virtio-net"]) == 1
    ((hop,),) = (record["hops"] for record in json.loads(capsys.readouterr().out))
    assert (hop["loaded"], hop["driver"]) == ([], "")


def test_what_is_no_device_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plug", "--image", "bare", "toaster"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["plug", "--image", "bare", "edu"]) == 2
    assert "the bare kernel has no PCI bus" in capsys.readouterr().err
