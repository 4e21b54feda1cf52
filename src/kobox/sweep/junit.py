"""A sweep as JUnit XML, for the pages of CI systems: a test case for each module.

One that refuses to load, as drivers do without their device, has passed: that is its answer. A crash or a hang is a
failure, what kobox lacks an error.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from kobox.sweep.records import ModuleResult, SweepReport
from kobox.sweep.text import line_of

_TAGS = {"crashed": "failure", "hung": "failure", "error": "error"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: SweepReport) -> str:
    """The document."""
    tags = [_TAGS.get(module.verdict) for module in report.modules]
    suite = ElementTree.Element(
        "testsuite", name=f"kobox sweep {report.release}", tests=str(len(tags)), failures=str(tags.count("failure")),
        errors=str(tags.count("error")), skipped="0", time=f"{report.seconds:.3f}",
    )  # fmt: skip
    for module in report.modules:
        suite.append(_case(module))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(module: ModuleResult) -> ElementTree.Element:
    folder = module.path.rpartition("/")[0].replace("/", ".")
    case = ElementTree.Element("testcase", classname=folder, name=module.name, time=f"{module.ms / 1000:.3f}")
    tag = _TAGS.get(module.verdict)
    if tag is not None:
        found = ElementTree.SubElement(case, tag, message=_plain(line_of(module)))
        found.text = _plain("\n".join(text for _, text in (*module.log, *module.unload_log)))
    else:
        ElementTree.SubElement(case, "system-out").text = _plain(line_of(module))
    return case


def _plain(text: str) -> str:
    """Without what XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
