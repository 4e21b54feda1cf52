"""An image made of a small kernel: everything it says comes from mapped tables of its cache entry."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_builders import RELEASE, TEXT_BASE, BtfBuilder, KernelBuilder
from kobox.errors import BadFile, KoboxError
from kobox.image import Cache, Image
from kobox.image.image import build_image, cache_key, content_of, open_entry, release_of


def _open(builder: KernelBuilder, folder: Path, config: bytes = b"CONFIG_SMP=y\n") -> Image:
    return open_entry(build_image(Cache(folder), builder.packed(), config, "vmlinuz"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return _open(KernelBuilder(), tmp_path_factory.mktemp("cache"))


@functools.cache
def _small() -> bytes:
    return KernelBuilder(fillers=600, bss=0).build()


def test_release_and_banner_are_the_kernels(image: Image) -> None:
    assert image.release == RELEASE
    assert image.banner == f"Linux version {RELEASE} (test@test) #1 SMP"
    assert image.vermagic == f"{RELEASE} SMP mod_unload "
    assert not image.is_rt


def test_the_build_id_is_that_of_the_notes(image: Image, tmp_path: Path) -> None:
    assert image.build_id == bytes(range(20)).hex()
    assert _open(KernelBuilder(build_id=b""), tmp_path).build_id == ""


def test_memory_is_read_by_virtual_address(image: Image) -> None:
    assert image.string(image.symbols["linux_banner"]) == image.banner + "\n"
    assert image.read(image.symbols["per_cpu_thing"], 2) == b"\xcc\xcc"
    assert image.read_int(TEXT_BASE + 0x100) == 0


def test_memory_outside_is_an_error_with_the_address(image: Image) -> None:
    with pytest.raises(BadFile, match="0xffffffff80000000"):
        image.read(TEXT_BASE - 0x1000000, 8)


def test_types_are_those_of_the_kernel(image: Image) -> None:
    assert image.btf.struct("thing").offset_of("second") == 4
    assert image.btf.enum("state") == {"STATE_ON": 0, "STATE_OFF": 1}


def test_initcalls_are_named(image: Image) -> None:
    assert [call.level for call in image.initcalls()] == ["early", "late"]


def test_sections_and_ranges_are_read(image: Image) -> None:
    assert image.section(".data..percpu") == bytes([0xCC]) * 0x1000
    assert image.section(".nothing") is None
    assert image.between("__start_BTF", "__stop_BTF") == KernelBuilder().btf
    assert image.between("__start_nothing", "__stop_nothing") == b""


def test_features_are_told_by_symbols(image: Image) -> None:
    assert image.features == {"btf"}


def test_the_flat_file_is_whole_pages(image: Image) -> None:
    assert image.flat_path.stat().st_size == image.layout.flat_size == len(image.flat)
    assert image.layout.flat_size % 4096 == 0


def test_no_certificates_are_no_bytes(image: Image) -> None:
    assert image.certificates() == b""
    assert image.revocations() == b""


def test_the_configuration_beside_it_is_kept(image: Image) -> None:
    assert image.config["SMP"] == "y"


def test_without_one_the_configuration_inside_is_used(tmp_path: Path) -> None:
    image = _open(KernelBuilder(config=b"CONFIG_INSIDE=y\n"), tmp_path, b"")
    assert image.config["INSIDE"] == "y"


@pytest.mark.parametrize("order", ["before", "behind"])
@pytest.mark.parametrize("absolute", [True, False])
def test_every_order_of_kallsyms_makes_an_image(tmp_path: Path, order: str, absolute: bool) -> None:
    image = _open(KernelBuilder(order=order, absolute=absolute), tmp_path)
    assert image.symbols["_text"] == TEXT_BASE
    assert ("per_cpu_thing" in image.symbols) is absolute


def test_an_rt_kernel_is_known_by_its_banner(tmp_path: Path) -> None:
    assert _open(KernelBuilder(banner=f"Linux version {RELEASE} (x) #1 SMP PREEMPT_RT"), tmp_path).is_rt


def test_the_entry_is_made_once(tmp_path: Path) -> None:
    cache, data, steps = Cache(tmp_path), KernelBuilder().packed(), []
    first = build_image(cache, data, b"", "vmlinuz", steps.append)
    assert [step.split(" ")[0] for step in steps] == ["unpacking", "reading", "reading"]
    steps.clear()
    assert build_image(cache, data, b"", "vmlinuz", steps.append).created == first.created
    assert steps == []


def test_another_configuration_is_another_entry() -> None:
    assert content_of(b"kernel", b"a") != content_of(b"kernel", b"b")
    assert cache_key("6.1", "abc").startswith("6.1-abc-")


def test_a_kernel_without_types_says_what_it_lacks(tmp_path: Path) -> None:
    builder = KernelBuilder(btf=b"")
    with pytest.raises(BadFile, match="BTF"):
        _open(builder, tmp_path)


def test_a_failed_build_leaves_no_entry(tmp_path: Path) -> None:
    data = bytearray(KernelBuilder().packed("xz"))
    data[0x500] ^= 0xFF
    with pytest.raises(BadFile):
        build_image(Cache(tmp_path), bytes(data), b"", "vmlinuz")
    assert Cache(tmp_path).entries() == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.integers(0, 1 << 20), min_size=1, max_size=4), values=st.binary(min_size=4, max_size=4))
def test_a_damaged_kernel_gives_an_image_or_an_error_of_kobox(tmp_path: Path, places: list[int], values: bytes) -> None:
    damaged = bytearray(_small())
    for place, value in zip(places, values, strict=False):
        damaged[place % len(damaged)] = value
    with contextlib.suppress(KoboxError):
        image = open_entry(build_image(Cache(tmp_path), bytes(damaged), b"", "vmlinux"))
        assert len(list(image.symbols.records())) == len(image.symbols)
        assert len(list(image.exports)) == len(image.exports)


@pytest.mark.parametrize("size", [64, 0x1000, 0x2000, 0x4000])
def test_a_cut_vmlinux_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(BadFile):
        build_image(Cache(tmp_path), _small()[:size], b"", "vmlinux")


def test_the_release_of_a_plain_vmlinux_is_in_its_banner() -> None:
    assert release_of(KernelBuilder().build(), "vmlinux") == RELEASE


def test_a_file_without_a_release_is_refused() -> None:
    with pytest.raises(BadFile, match="no release"):
        release_of(b"\x7fELF" + bytes(1000), "vmlinux")


def test_split_types_of_a_module_lie_over_the_images(image: Image) -> None:
    from kobox.image import Btf

    base = BtfBuilder()
    number = base.int("int", 4, signed=True)
    base.struct("thing", 8, [("first", number, 0), ("second", number, 32)])
    base.enum("state", {"STATE_ON": 0, "STATE_OFF": 1})
    module = BtfBuilder(base)
    module.struct("mine", 8, [("thing", 2, 0)])
    assert Btf(module.build(), base=image.btf).struct("mine").offset_of("thing.second") == 4
