"""Whole modules linked in one go, and a whole distribution."""

from __future__ import annotations

from functools import partial

import pytest

from builders import KoBuilder
from kobox.link.findings import Refusal
from kobox.link.linked import (
    MODULE_AREA,
    depends,
    exports_from_symvers,
    link_module,
    link_tree,
)
from kobox.link.patch import Cpu
from kobox.link.policy import Export, Exports
from kobox.link.rules import default_rules
from kobox.link.validity import load_view

SYMVERS = [
    "0x00000002\t_printk\tvmlinux\tEXPORT_SYMBOL\t\n",
    "0x00000003\tfor_gpl\tvmlinux\tEXPORT_SYMBOL_GPL\t\n",
    "0x00000004\tspaced\tvmlinux\tEXPORT_SYMBOL_GPL\tSPACE\n",
    "0x00000005\ttheirs\tdrivers/other\tEXPORT_SYMBOL\t\n",
]
KERNEL = Exports("kernel", {"_printk": Export("_printk", 0xFFFFFFFF81000000)})


def exporter() -> KoBuilder:
    module = KoBuilder("exporter").module().export("plain", crc=1, section=".text", value=8)
    return module.export("for_gpl", gpl=True, namespace="SPACE", crc=2)


def user(name: str = "user") -> KoBuilder:
    return KoBuilder(name).module(depends="exporter").text(bytes(16)).reloc(".text", 1, 2, "plain", -4)


def test_a_linked_module_knows_what_was_bound_to_what() -> None:
    first = link_module(exporter().build(), [KERNEL])
    second = link_module(user().build(), [KERNEL, first.exports], base=MODULE_AREA + 0x100000)
    assert second.symbols.bound["plain"].owner == "exporter"
    assert second.used == ("exporter",)
    text = second.addresses[second.view.find(".text")]
    distance = int.from_bytes(second.memory["core"][text - MODULE_AREA - 0x100000 :][1:5], "little", signed=True)
    assert text + 1 + 4 + distance == first.exports.table["plain"].value & (1 << 64) - 1


def test_exports_are_read_back_from_the_linked_tables() -> None:
    module = link_module(exporter().build(), [KERNEL])
    text = module.addresses[module.view.find(".text")]
    assert module.exports.table == {
        "plain": Export("plain", text + 8, False, "", 1),
        "for_gpl": Export("for_gpl", text, True, "SPACE", 2),
    }


def test_a_module_that_misses_symbols_names_all_of_them() -> None:
    module = user().undefined("another")
    with pytest.raises(Refusal, match="unknown symbols: plain, another") as caught:
        link_module(module.build(), [KERNEL])
    assert caught.value.name == "ENOENT"


def test_time_is_told_by_step_and_patching_is_asked_for() -> None:
    plain = link_module(exporter().build(), [KERNEL])
    fitted = link_module(exporter().build(), [KERNEL], cpu=Cpu())
    assert set(fitted.seconds) - set(plain.seconds) == {"patch"}
    assert plain.name == "exporter"


def test_a_tree_is_linked_with_dependencies_first() -> None:
    built = {"user": user().build(), "exporter": exporter().build()}
    order: list[str] = []
    report = link_tree(
        {name: partial(built.get, name, b"") for name in built}, KERNEL, each=lambda module: order.append(module.name)
    )
    assert order == ["exporter", "user"]
    assert (report.modules, report.linked, report.failures) == (2, 2, {})
    assert report.relocations == 11


def test_a_tree_reports_who_failed_and_goes_on() -> None:
    built = {"broken": b"no module", "user": user().build(), "exporter": exporter().build()}
    report = link_tree({name: partial(built.get, name, b"") for name in built}, KERNEL)
    assert list(report.failures) == ["broken"]
    assert (report.modules, report.linked) == (3, 2)


def test_modules_that_depend_on_each_other_are_each_tried_once() -> None:
    one = KoBuilder("one").module(depends="two").build()
    two = KoBuilder("two").module(depends="one").build()
    report = link_tree({"one": lambda: one, "two": lambda: two}, KERNEL)
    assert (report.modules, report.linked) == (2, 2)


def test_dependencies_are_module_names() -> None:
    assert depends(load_view(KoBuilder("a").module(depends="b-c,d").build(), default_rules())) == ["b_c", "d"]


def test_a_symvers_file_gives_exports_by_owner() -> None:
    kernel = exports_from_symvers(SYMVERS, 0x1000)
    assert list(kernel.table) == ["_printk", "for_gpl", "spaced"]
    assert kernel.table["spaced"] == Export("spaced", 0x1030, True, "SPACE", 4)
    assert list(exports_from_symvers(SYMVERS, 0, "drivers/other").table) == ["theirs"]
