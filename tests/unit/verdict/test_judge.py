"""Every reason at once, in the order in which a load meets them, with the kernel's own answer first."""

from __future__ import annotations

import errno
import lzma
import struct
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import ALLOC, COMMON, EXEC, NOBITS, WRITE, KoBuilder
from depot_roots import DepotRoot
from image_builders import RELEASE, BtfBuilder
from kobox.depot.systems import open_system
from kobox.image import Image
from kobox.link import Export, Exports
from kobox.verdict.records import Reason, Verdict
from kobox.verdict.session import FORCE, judge_files
from signing import ec_identity, make_identity, signed
from verdict_kernels import CONFIG, VERMAGIC, crc, fitting, session, small_image, subject, type_builder, using


def judge(image: Image, module: KoBuilder | bytes, cmdline: str = "", parameters: str = "", flags: int = 0) -> Verdict:
    return session(image, cmdline).load(subject(module), parameters, flags)


def rules(verdict: Verdict) -> list[str]:
    return [reason.rule for reason in verdict.reasons]


def only(verdict: Verdict) -> Reason:
    (reason,) = verdict.reasons
    return reason


def log(verdict: Verdict) -> list[str]:
    return [line.text for line in verdict.log]


def notes(verdict: Verdict) -> dict[str, str]:
    return {note.rule: note.text for note in verdict.notes}


def test_a_module_that_fits_loads_with_what_it_taints_as_notes(image: Image) -> None:
    verdict = judge(image, using("fits", "plain"))
    assert (verdict.loads, verdict.errno, verdict.reasons) == (True, 0, ())
    assert (verdict.taint, verdict.module_taint) == (1 << 12 | 1 << 13,) * 2
    assert log(verdict) == [
        "fits: loading out-of-tree module taints kernel.",
        "fits: module verification failed: signature and/or required key missing - tainting kernel",
    ]
    assert set(notes(verdict)) == {"signature-missing", "taint"}


def test_reasons_of_every_step_come_together_in_the_order_of_a_load(image: Image) -> None:
    module = using("bad", "nowhere", "spaced", vermagic="6.9.0-other SMP preempt mod_unload ", license="Proprietary")
    module.undefined("for_gpl").section(".odd", b"x", flags=WRITE | ALLOC | EXEC)
    verdict = judge(image, module, "module.sig_enforce=1 module_blacklist=bad")
    assert rules(verdict) == [
        "signature-missing", "module-blacklist", "vermagic", "write-exec", "symbol-missing", "symbol-namespace",
        "symbol-gpl-only",
    ]  # fmt: skip
    assert [reason.errno for reason in verdict.reasons] == [
        errno.EKEYREJECTED, errno.EPERM, errno.ENOEXEC, errno.ENOEXEC, errno.ENOENT, errno.EINVAL, errno.ENOENT,
    ]  # fmt: skip
    assert verdict.errno == errno.EKEYREJECTED
    assert log(verdict) == ["Loading of unsigned module is rejected"]
    assert all(reason.fix for reason in verdict.reasons)


def test_what_follows_the_first_refusal_is_neither_logged_nor_tainted(image: Image) -> None:
    verdict = judge(image, fitting("late", vermagic="nonsense"))
    assert (verdict.errno, verdict.taint) == (errno.ENOEXEC, 0)
    assert log(verdict) == [f"late: version magic 'nonsense' should be '{VERMAGIC}'"]


# -- the file


def test_what_is_no_elf_file_is_named(image: Image) -> None:
    for data, what in (
        (b"version https://git-lfs.github.com/spec/v1\n" * 3, "Git LFS"),
        (b"<!DOCTYPE html>" * 9, "page of the web"),
        (b"\x7fEL", "too short"),
        (bytes(100), "00 00 00 00"),
    ):
        reason = only(judge(image, data))
        assert (reason.rule, reason.errno) == ("not-elf", errno.ENOEXEC)
        assert what in reason.text


def test_an_empty_file_is_refused_when_it_is_read(image: Image) -> None:
    verdict = judge(image, b"")
    assert (verdict.reasons[0].rule, verdict.errno, verdict.log) == ("not-elf", errno.EINVAL, ())


def test_a_compressed_file_is_unpacked_and_one_that_is_cut_off_is_named(image: Image, tmp_path: Path) -> None:
    packed = lzma.compress(fitting().build())
    whole, cut = tmp_path / "a.ko.xz", tmp_path / "b.ko.xz"
    whole.write_bytes(packed)
    cut.write_bytes(packed[:-30])
    first, second = judge_files([str(whole), str(cut)], [session(image).host])
    assert first.loads
    assert "xz" in notes(first)["compressed"]
    assert only(second).rule == "not-elf"
    assert "xz file that cannot be unpacked" in only(second).text


def test_another_architecture_is_named_and_the_metadata_is_judged_all_the_same(image: Image) -> None:
    module = KoBuilder("arm", machine=183).module(vermagic="6.9.0-other aarch64")
    verdict = judge(image, module)
    assert rules(verdict)[:1] == ["architecture"]
    assert "AARCH64" in verdict.reasons[0].text
    assert "vermagic" in rules(verdict)
    assert log(verdict) == ["Invalid architecture in ELF header: 183"]


def test_a_32_bit_module_is_not_read_as_if_it_had_64(image: Image) -> None:
    verdict = judge(image, KoBuilder("small", bits=32, machine=3).module())
    assert rules(verdict) == ["architecture"]
    assert "386" in only(verdict).text


def test_a_cut_off_file_and_a_plain_object_file_are_told_apart(image: Image) -> None:
    whole = fitting().build()
    assert rules(judge(image, whole[: len(whole) // 2])) == ["elf"]
    assert rules(judge(image, KoBuilder("object").text().symbol("f").reloc(".text", 0, 1, "f"))) == ["no-module"]


def test_two_faults_of_a_file_are_both_found(image: Image) -> None:
    data = bytearray(fitting().build())
    struct.pack_into("<H", data, 16, 2)
    struct.pack_into("<H", data, 18, 40)
    assert rules(judge(image, bytes(data)))[:2] == ["no-module", "architecture"]


# -- metadata


def test_vermagic_differences_are_named_word_by_word(image: Image) -> None:
    reason = only(judge(image, fitting("v", vermagic=f"{RELEASE} SMP preempt mod_unload modversions ")))
    assert [(item["word"], item["only"]) for item in reason.items] == [("preempt", "module"), ("modversions", "module")]
    assert "the module has 'preempt'" in reason.text


def test_with_versions_another_release_is_only_a_note(image: Image) -> None:
    verdict = judge(image, fitting("v", vermagic="6.8.0 SMP mod_unload "))
    assert verdict.loads
    assert "6.8.0" in notes(verdict)["other-release"]


def test_without_versions_the_release_counts_and_the_load_is_forced(image: Image) -> None:
    module = KoBuilder("bare").module(vermagic="6.8.0 SMP mod_unload ")
    reason = only(judge(image, module))
    assert reason.rule == "vermagic"
    assert ("6.8.0", "module", "release") in [(item["word"], item["only"], item["place"]) for item in reason.items]


def test_forced_loading_passes_over_versions_and_taints(image: Image) -> None:
    module = fitting("v", vermagic="nonsense").version("plain", 1).undefined("plain")
    assert rules(judge(image, module)) == ["vermagic", "symbol-version"]
    forced = judge(image, module, flags=FORCE)
    assert forced.loads
    assert forced.module_taint & 2


def test_what_a_lenient_kernel_passes_over_is_noted(image: Image) -> None:
    verdict = judge(image, KoBuilder("none").init_text().exit_text().modinfo(license="GPL", name="none").this_module())
    assert verdict.loads
    assert verdict.module_taint & 2
    assert {"no-versions", "no-vermagic"} <= set(notes(verdict))


def test_a_kernel_without_forced_loading_says_what_is_missing(tmp_path: Path) -> None:
    strict = small_image(tmp_path, CONFIG.replace("CONFIG_MODULE_FORCE_LOAD=y\n", ""))
    assert set(rules(judge(strict, KoBuilder("none").module(vermagic=VERMAGIC)))) == {"forced-load"}


def test_another_struct_module_is_told_by_its_crc(image: Image) -> None:
    reason = only(judge(image, KoBuilder("m").module(vermagic=VERMAGIC).version("module_layout", 5)))
    assert reason.rule == "struct-module-version"
    assert "0x00000005" in reason.text
    assert [line.text for line in reason.log] == ["m: disagrees about version of symbol module_layout"]


# -- symbols


def test_each_changed_symbol_is_an_item_with_both_crcs(image: Image) -> None:
    module = fitting("c").undefined("plain").version("plain", 7).undefined("spaced")
    module.version("spaced", 8).modinfo(import_ns="SPACE")
    verdict = judge(image, module)
    assert [dict(item) for item in only(verdict).items] == [
        {"symbol": name, "owner": "kernel", "built": built, "expected": f"{crc(name):#010x}"}
        for name, built in (("plain", "0x00000007"), ("spaced", "0x00000008"))
    ]
    assert verdict.errno == errno.EINVAL
    assert "c: Unknown symbol plain (err -22)" in log(verdict)


def test_a_name_that_the_kernel_keeps_to_itself_is_not_a_name_it_lacks(image: Image) -> None:
    verdict = judge(image, using("u", "linux_banner", "plan"))
    assert set(rules(verdict)) == {"symbol-not-exported", "symbol-missing"}
    missing = next(reason for reason in verdict.reasons if reason.rule == "symbol-missing")
    assert "plan is like plain" in missing.text


def test_gpl_only_symbols_are_closed_to_other_licences(image: Image) -> None:
    assert judge(image, using("free", "for_gpl")).loads
    verdict = judge(image, using("closed", "for_gpl", license="MIT"))
    assert (rules(verdict), verdict.errno) == (["symbol-gpl-only"], errno.ENOENT)


def test_a_namespace_must_be_imported(image: Image) -> None:
    assert judge(image, using("s", "spaced", import_ns="SPACE")).loads
    reason = only(judge(image, using("s", "spaced")))
    assert (reason.rule, reason.errno, reason.items[0]["namespace"]) == ("symbol-namespace", errno.EINVAL, "SPACE")
    assert "MODULE_IMPORT_NS(SPACE);" in reason.fix


def test_common_symbols_and_duplicate_exports_are_refused(image: Image) -> None:
    assert rules(judge(image, fitting("k").symbol("shared", COMMON))) == ["symbol-common"]
    verdict = judge(image, fitting("d").export("plain", crc=1))
    assert (rules(verdict), verdict.errno) == (["export-duplicate"], errno.ENOEXEC)
    assert only(verdict).items[0] == {"symbol": "plain", "owner": "kernel"}


# -- other modules


def exporter(**modinfo: str | list[str]) -> KoBuilder:
    return fitting("giver", **modinfo).export("given", crc=9)


def taker() -> KoBuilder:
    return using("taker", "given", depends="giver").version("given", 9)


def test_what_a_module_needs_is_found_in_the_tree_and_loaded_first(image: Image, tmp_path: Path) -> None:
    exporter().write(tmp_path / "giver.ko")
    verdict = session(image, root=tmp_path).load(subject(taker()))
    assert verdict.loads
    assert [(needed.name, needed.symbols, needed.loads) for needed in verdict.needed] == [("giver", 1, True)]


def test_insmod_brings_nothing_and_is_told_who_has_the_symbol(image: Image, tmp_path: Path) -> None:
    exporter().write(tmp_path / "giver.ko")
    verdict = session(image, root=tmp_path).load(subject(taker()), alone=True)
    assert (rules(verdict), verdict.errno) == (["dependency-not-loaded"], errno.ENOENT)
    assert only(verdict).items[0]["exporters"] == ["giver"]


def test_a_dependency_that_is_nowhere_is_named(image: Image, tmp_path: Path) -> None:
    reason = only(session(image, root=tmp_path).load(subject(taker())))
    assert reason.rule == "dependency-missing"
    assert "depends on giver" in reason.text


def test_a_dependency_that_does_not_load_ends_the_load_with_its_own_error(image: Image, tmp_path: Path) -> None:
    exporter(vermagic="nonsense").write(tmp_path / "giver.ko")
    verdict = session(image, root=tmp_path).load(subject(taker()))
    assert rules(verdict) == ["dependency-refused"]
    assert (verdict.errno, verdict.reasons[0].by) == (errno.ENOEXEC, "modprobe")
    assert log(verdict) == [f"giver: version magic 'nonsense' should be '{VERMAGIC}'"]


def test_needs_of_needs_are_listed_before_them(image: Image, tmp_path: Path) -> None:
    fitting("first").export("first_f", crc=1).write(tmp_path / "first.ko")
    middle = using("middle", "first_f", depends="first").version("first_f", 1).export("middle_f", crc=2)
    middle.write(tmp_path / "middle.ko")
    last = using("last", "first_f", "middle_f", depends="middle,first").version("first_f", 1).version("middle_f", 2)
    verdict = session(image, root=tmp_path).load(subject(last))
    assert [needed.name for needed in verdict.needed] == ["first", "middle"]
    assert verdict.loads


def test_dependencies_that_go_round_end(image: Image, tmp_path: Path) -> None:
    using("one", "two_f", depends="two").export("one_f", crc=1).write(tmp_path / "one.ko")
    using("two", "one_f", depends="one").export("two_f", crc=1).write(tmp_path / "two.ko")
    module = using("user", "one_f", depends="one").version("one_f", 1)
    assert not session(image, root=tmp_path).load(subject(module)).loads


def test_a_proprietary_exporter_taints_its_users_and_closes_gpl_symbols(image: Image, tmp_path: Path) -> None:
    exporter(license="Proprietary").write(tmp_path / "giver.ko")
    heir = session(image, root=tmp_path).load(subject(taker()))
    assert heir.loads
    assert heir.module_taint & 1
    both = using("taker", "for_gpl", "given", depends="giver").version("given", 9)
    assert rules(session(image, root=tmp_path).load(subject(both))) == ["symbol-proprietary"]


def test_a_name_that_is_loaded_is_taken(image: Image) -> None:
    kernel = session(image)
    assert kernel.load(subject(fitting("same"))).loads
    again = kernel.load(subject(fitting("same")))
    assert (rules(again), again.errno, again.log) == (["already-loaded"], errno.EEXIST, ())
    kernel.unload("same")
    assert kernel.load(subject(fitting("same"))).loads


# -- policy


def test_lockdown_and_secure_boot_refuse_unsigned_modules(image: Image) -> None:
    locked = judge(image, fitting(), "lockdown=confidentiality")
    assert (locked.errno, rules(locked)) == (errno.EPERM, ["signature-missing"])
    assert "lockdown=confidentiality on the kernel command line" in only(locked).text
    secure = session(image, secure_boot=True).load(subject(fitting()))
    assert "Secure Boot" in only(secure).text


def test_a_key_that_is_enrolled_is_trusted_and_one_that_is_not_is_named(image: Image) -> None:
    data = signed(fitting().build(), ec_identity())
    stranger = judge(image, data, "module.sig_enforce")
    reason = only(stranger)
    assert (reason.rule, reason.errno) == ("signature-unknown-key", errno.EKEYREJECTED)
    assert "ec key" in reason.text
    assert "serial number" in reason.text
    trusted = session(image, "module.sig_enforce", keys=[ec_identity().data]).load(subject(data))
    assert trusted.loads
    assert trusted.facts["trusted_key"].startswith("ec key")


def test_a_changed_and_a_malformed_signature_are_refused_by_any_kernel(image: Image) -> None:
    data = bytearray(signed(fitting().build(), ec_identity()))
    data[0x200] ^= 1
    changed = session(image, keys=[ec_identity().data]).load(subject(bytes(data)))
    assert (changed.reasons[0].rule, changed.errno) == ("signature-damaged", errno.EKEYREJECTED)
    lying = judge(image, fitting().signature(b"no PKCS#7", sig_len=1 << 20))
    assert (lying.reasons[0].rule, lying.errno) == ("signature-malformed", errno.EBADMSG)


def test_a_file_that_the_kernel_s_blacklist_names_is_refused(image: Image) -> None:
    data = signed(fitting().build(), ec_identity())
    kernel = session(image, keys=[ec_identity().data])
    banned = frozenset({f"bin:{sha256(data).hexdigest()}"})
    kernel.host.__dict__["rings"] = replace(kernel.host.rings, banned=banned)
    verdict = kernel.load(subject(data))
    assert (rules(verdict), verdict.errno) == (["signature-banned"], errno.EKEYREJECTED)
    assert log(verdict) == [f"Module hash {sha256(data).hexdigest()} is blacklisted"]


def test_the_keys_that_a_kernel_trusts_are_listed(image: Image) -> None:
    data = signed(fitting().build(), make_identity("somebody else"))
    host = session(image, "module.sig_enforce=1", keys=[ec_identity().data])
    assert "'ec key: " in only(host.load(subject(data))).text


def test_disabled_modules_and_kernels_without_modules_say_so(image: Image, tmp_path: Path) -> None:
    disabled = judge(image, fitting(), "nomodule")
    assert (rules(disabled), disabled.errno) == (["modules-disabled"], errno.EPERM)
    without = small_image(tmp_path, CONFIG.replace("CONFIG_MODULES=y\n", ""))
    assert only(judge(without, fitting())).errno == errno.ENOSYS


def test_a_kernel_that_panics_on_a_taint_is_told(image: Image) -> None:
    verdict = judge(image, fitting(), "panic_on_taint=0x1000")
    assert (rules(verdict), verdict.loads, verdict.errno) == (["panic-on-taint"], False, 0)


# -- memory and parameters


def test_sizes_beyond_what_modules_may_have_are_refused(image: Image) -> None:
    huge = fitting("huge").section(".bss", type=NOBITS, flags=ALLOC | WRITE, align=8, size=1 << 31)
    assert (rules(judge(image, huge)), judge(image, huge).errno) == (["no-memory"], errno.ENOMEM)
    percpu = fitting("per").section(".data..percpu", bytes(9000), flags=ALLOC | WRITE, align=64)
    assert log(judge(image, percpu))[-1] == "per: Could not allocate 9000 bytes percpu data"


def parametrised() -> KoBuilder:
    module = using("par", "param_ops_int", "param_ops_bool").param("number").param("flag", "bool")
    return module.param("danger", flags=1)


@pytest.mark.parametrize("given", ["number=5 flag", "flag=n", "number=-0x10", ""])
def test_values_that_fit_are_accepted(image: Image, given: str) -> None:
    assert judge(image, parametrised(), parameters=given).loads


@pytest.mark.parametrize(
    ("given", "number"), [("number=zz", errno.EINVAL), ("number=99999999999", errno.ERANGE), ("flag=2", errno.EINVAL)]
)
def test_values_that_do_not_fit_are_refused_with_the_kernel_s_line(image: Image, given: str, number: int) -> None:
    verdict = judge(image, parametrised(), parameters=given)
    name, _, value = given.partition("=")
    assert (rules(verdict), verdict.errno) == (["parameter"], number)
    assert log(verdict)[-1] == f"par: `{value}' invalid for parameter `{name}'"


def test_an_unknown_parameter_and_an_unsafe_one_are_notes(image: Image) -> None:
    verdict = judge(image, parametrised(), parameters="nothing=1 danger=2")
    assert verdict.loads
    assert "no parameter 'nothing'" in notes(verdict)["unknown-parameter"]
    assert verdict.taint & 1 << 6


def test_a_parameter_of_the_module_s_own_making_is_left_undecided(image: Image) -> None:
    module = fitting("own").data(bytes(32), ".own").symbol("own_ops", ".own").param("mine", ops="own_ops")
    verdict = judge(image, module, parameters="mine=anything")
    assert verdict.loads
    assert "mine" in notes(verdict)["own-parameter"]


def test_types_of_another_build_are_refused_where_the_kernel_minds(image: Image, tmp_path: Path) -> None:
    another = type_builder()
    another.struct("only_there" * 99, 8, [])

    def with_types(base: BtfBuilder) -> KoBuilder:
        btf = BtfBuilder(base)
        btf.struct("mine", 8, [("member", 1, 0)])
        return fitting("typed").section(".BTF", btf.build(), flags=0)

    strict = small_image(tmp_path / "strict", CONFIG + "CONFIG_DEBUG_INFO_BTF_MODULES=y\n")
    lenient = small_image(tmp_path, CONFIG + "CONFIG_DEBUG_INFO_BTF_MODULES=y\nCONFIG_MODULE_ALLOW_BTF_MISMATCH=y\n")
    assert judge(strict, with_types(type_builder())).loads
    refused = judge(strict, with_types(another))
    assert (rules(refused), refused.errno) == (["btf"], errno.EINVAL)
    assert log(refused)[-1] == "failed to validate module [typed] BTF: -22"
    assert "btf" in notes(judge(lenient, with_types(another)))
    assert "btf" not in notes(judge(image, with_types(another)))


# -- the system around it


def system(tmp_path: Path, conf: str, cmdline: str = ""):
    root = DepotRoot(tmp_path, RELEASE).module("kernel/other.ko").builtin("kernel/inside.ko")
    root.conf("etc/modprobe.d/x.conf", conf).write()
    return open_system(str(tmp_path), RELEASE, cmdline)


def test_modprobe_s_configuration_counts_too(image: Image, tmp_path: Path) -> None:
    opened = system(tmp_path, "install par /bin/false\nblacklist par\noptions par number=zz other=1\n")
    verdict = session(image, system=opened).load(subject(parametrised()))
    assert rules(verdict) == ["install-command", "parameter"]
    install = verdict.reasons[0]
    assert (install.by, install.errno) == ("modprobe", 0)
    assert "x.conf:1" in install.text
    assert "x.conf:3" in verdict.reasons[1].text
    assert {"blacklist", "unknown-parameter"} <= set(notes(verdict))


def test_options_of_the_command_line_reach_the_module(image: Image) -> None:
    assert rules(judge(image, parametrised(), "par.number=zz")) == ["parameter"]


def test_a_file_of_the_tree_that_depmod_has_not_seen_or_another_one_hides_is_noted(
    image: Image, tmp_path: Path
) -> None:
    opened = system(tmp_path, "")
    for name in ("new", "other"):
        path = tmp_path / f"lib/modules/{RELEASE}/updates/{name}.ko"
        path.parent.mkdir(exist_ok=True)
        fitting(name).write(path)
        verdict = session(image, system=opened).load(subject(fitting(name), str(path)))
        assert verdict.loads
        assert {"new": "not-indexed", "other": "shadowed"}[name] in notes(verdict)


def test_a_symbol_that_another_of_the_kernels_has_is_said_to_be_there(image: Image, tmp_path: Path) -> None:
    using("u", "nowhere").write(tmp_path / "u.ko")
    host, other = session(image).host, session(image).host
    other.label = "the other"
    other.kernel = Exports("kernel", {"nowhere": Export("nowhere", 1), "module_layout": Export("module_layout", 2)})
    first, second = judge_files([str(tmp_path / "u.ko")], [host, other])
    assert first.reasons[0].items[0] == {"symbol": "nowhere", "elsewhere": ["the other"]}
    assert "the other has some of them" in first.reasons[0].text
    assert second.loads


def test_a_module_that_the_kernel_has_inside_is_noted(image: Image, tmp_path: Path) -> None:
    verdict = session(image, system=system(tmp_path, "")).load(subject(fitting("inside")))
    assert "part of this kernel" in notes(verdict)["builtin"]


# -- anything at all


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    size=st.one_of(st.none(), st.integers(0, 4000)),
    parameters=st.text(max_size=20),
)
def test_whatever_the_file_holds_there_is_an_answer(
    image: Image, changes: list[tuple[int, int]], size: int | None, parameters: str
) -> None:
    data = bytearray(parametrised().undefined("spaced").export("given", crc=9).build())
    for place, value in changes:
        data[place % len(data)] = value
    verdict = session(image).load(subject(bytes(data[:size])), parameters)
    assert verdict.loads == (not verdict.reasons)
    assert all(reason.fix for reason in verdict.reasons)
