"""What to do about each reason: one sentence a rule, filled in with names. A rule without an entry is a mistake that a
test finds."""

from __future__ import annotations

FIXES: dict[str, str] = {
    "already-loaded": "unload it first: rmmod {name}",
    "architecture": "build it for x86-64, or take the package of this architecture",
    "bare-lacks": "take an image, which is a whole kernel: kobox kernel add --debian, then --image",
    "btf": "rebuild it against this kernel's own vmlinux, or strip its types: objcopy -R .BTF {file}",
    "builtin-name": "it is part of this kernel already: nothing needs to be loaded; its parameters go on the kernel "
    "command line as {name}.parameter=value",
    "dependency-missing": "install the module in the tree (then depmod), or lay its file beside {file}",
    "dependency-not-loaded": "load it with modprobe, which brings what it needs, or load {owners} first",
    "dependency-refused": "what keeps the dependency from loading must be solved first: kobox explain {path}",
    "elf": "the file is damaged or was changed after it was linked: build or copy it again and compare checksums",
    "export-duplicate": "two modules (or a module and the kernel) export one name: load only one of them, or rename it",
    "forced-load": "this kernel was built without CONFIG_MODULE_FORCE_LOAD: rebuild the module with CONFIG_MODVERSIONS "
    "as the kernel has it",
    "install-command": "remove that line, or pass it over: modprobe --ignore-install {name}",
    "kernel-crash": "do not load it: rebuild the file from its sources",
    "layout": "the file is damaged: build or copy it again",
    "livepatch-support": "this kernel was built without CONFIG_LIVEPATCH: it takes no livepatch module",
    "module-blacklist": "remove {name} from module_blacklist= on the kernel command line and reboot",
    "modules-disabled": "remove what disables modules and reboot: it cannot be taken back while the kernel runs",
    "name-empty": "the file is damaged, or was not made by the kernel's build system: build it again",
    "name-too-long": "shorten the module's name (its object file's name in the Makefile)",
    "no-memory": "make the module's static data smaller: large buffers belong in vmalloc() memory",
    "no-module": "link it as a module: build with the kernel's own build system (make -C /lib/modules/{release}/build "
    "M=$PWD modules), which adds what this file lacks",
    "no-module-support": "this kernel was built without CONFIG_MODULES: build the driver into it",
    "no-symbols": "copy the unstripped file again: modules may be stripped with strip --strip-debug only",
    "not-elf": "this is no module: check how it was copied or downloaded (an error page, a Git LFS pointer, a "
    "compressed file under a wrong name)",
    "panic-on-taint": "take the bit out of panic_on_taint= on the kernel command line, or make the module not taint",
    "parameter": "give the parameter a value of its type; modinfo -p {file} lists them",
    "parameter-lockdown": "leave the parameter out: it names hardware resources, which lockdown forbids",
    "parameter-twice": "declare each parameter once in the module's source",
    "percpu": "make the module's static per-CPU data smaller: allocate with alloc_percpu() instead",
    "relocation": "build it with this kernel's own build system and compiler flags (-mcmodel=kernel)",
    "signature-banned": "the kernel's blacklist names this file or its signer: get a release that is signed anew",
    "signature-damaged": "sign it again, or take the unchanged file from its package: it was changed or stripped after "
    "it was signed",
    "signature-malformed": "sign it again with the kernel's scripts/sign-file: what follows the module's content is no "
    "signature that can be read",
    "signature-missing": "sign it with a key that this kernel trusts and enroll the certificate (mokutil --import "
    "MOK.der), or boot without {by}",
    "signature-unknown-key": "enroll the signer's certificate (mokutil --import MOK.der, then reboot), or sign with a "
    "key that this kernel trusts, or boot without {by}",
    "signature-unsupported": "sign with an algorithm that this kernel has built in (sha256 with RSA), or boot without "
    "{by}",
    "struct-module-version": "rebuild the module against the headers of exactly this kernel: {release}",
    "symbol-busy": "load it again when {owners} has finished loading",
    "symbol-common": "build it with -fno-common, as the kernel's build system does",
    "symbol-gpl-only": 'the module must be licensed under the GPL (MODULE_LICENSE("GPL")) to use them, or do without',
    "symbol-missing": "rebuild the module for {release}, whose interface differs, or enable what provides the symbol",
    "symbol-namespace": "declare it in the module's source: {imports}",
    "symbol-not-exported": "the kernel keeps the function to itself: use an exported one, or add EXPORT_SYMBOL to the "
    "kernel",
    "symbol-proprietary": "a GPL-only interface and a proprietary module's symbols cannot be used together: drop one",
    "symbol-section": "the file is damaged: build or copy it again",
    "symbol-version": "rebuild the module against the headers of exactly this kernel: {release}; where a module "
    "exports it, rebuild both together",
    "vermagic": "rebuild the module against the headers of this kernel: {release}",
    "write-exec": "give the section one of the two rights: code and writable data must not share a section",
}


def fix_of(rule: str, **names: str) -> str:
    """The sentence for a rule; KeyError for a rule that has none or lacks a name."""
    return FIXES[rule].format(**names)
