"""Every command: name, the module of this folder that serves it, one line of help. Completion and help read it too."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    module: str
    help: str


COMMANDS: dict[str, Command] = {
    "run": Command("run", "boot a kernel, load a .ko with what it needs, show its log, unload it, report"),
    "build": Command("build", "compile modules from source for one or more kernels, with headers found or fetched"),
    "watch": Command("watch", "build, load and test a module on every change of its sources, in a warm kernel"),
    "kunit": Command("kunit", "run the KUnit tests of modules, each file in a fresh kernel, and print KTAP"),
    "sweep": Command("sweep", "load and unload every module of a tree, each in a fresh kernel; what each registered"),
    "boot": Command("boot", "start a kernel that stays: a session, which other commands act on"),
    "ps": Command("ps", "list the sessions that run"),
    "halt": Command("halt", "end a session"),
    "reboot": Command("reboot", "boot a session's kernel anew"),
    "save": Command("save", "keep a session on disk"),
    "restore": Command("restore", "take up a saved session"),
    "events": Command("events", "what happens in a session, as it happens: log, loads, uevents, taint"),
    "interrupt": Command("interrupt", "end the call that a session's kernel is in"),
    "cat": Command("cat", "print files of a session's kernel"),
    "ls": Command("ls", "list directories of a session's kernel"),
    "write": Command("write", "write to a file of a session's kernel"),
    "mount": Command(
        "mount", "a disk image as a folder of this host, by a distribution's own file systems, without root"
    ),
    "umount": Command("umount", "end what kobox mount began; the image is clean when it returns"),
    "enter": Command("enter", "run a program against a session's kernel: the real insmod, lsmod, dmesg, any script"),
    "kernel": Command("kernel", "add, list, show and remove kernel images"),
    "shell": Command("shell", "a prompt in front of a kernel: files, modules, log, with pipes and completion"),
    "readko": Command("readko", "show what is in a .ko: sections, symbols, metadata, signature"),
    "oops": Command("oops", "decode a pasted oops: file and line of every address that can be known"),
    "taint": Command("taint", "explain a kernel's taint: a value, a log's letters, this machine"),
    "modprobe": Command(
        "modprobe", "kmod's modprobe on a session, a root directory or this host, with reasons (--json)"
    ),
    "insmod": Command("insmod", "insert a file into a session's kernel or this host's (--live), as kmod's insmod"),
    "rmmod": Command("rmmod", "remove modules from a session's kernel or this host's (--live), as kmod's rmmod"),
    "lsmod": Command("lsmod", "list loaded modules, as kmod's lsmod or as JSON"),
    "depmod": Command("depmod", "index the modules of a root directory or this host, as kmod's depmod, incrementally"),
    "modinfo": Command("modinfo", "what modules say of themselves, as kmod's modinfo or as JSON"),
    "dmesg": Command("dmesg", "show the log of a kernel, a file or this host, as util-linux's dmesg or as JSON"),
    "trace": Command("trace", "load a .ko and show what its functions did: calls with times, tracepoints, arguments"),
    "plug": Command("plug", "plug devices into a kernel: from their modalias to the driver that takes them"),
    "explain": Command("explain", "will a module load there, and if not why; error texts; what a name leads to"),
    "audit": Command("audit", "which unwanted modules can be loaded on a system, how, and what stops them"),
    "sign": Command("sign", "sign modules as the kernel's sign-file does, many at once; strip signatures"),
    "verify": Command("verify", "whose signature a module carries, and whether a kernel trusts it: key and ring"),
    "keygen": Command("keygen", "make a key and a certificate for signing modules"),
    "mok": Command("mok", "the keys of a machine with Secure Boot: mokutil's verbs on a directory of variables"),
    "inspect": Command("inspect", "run unknown modules and tell what they did: hooks, patches, hiding, permissions"),
    "cache": Command("cache", "show, check and empty kobox's cache"),
    "completion": Command("completion", "the script that completes kobox's command lines in bash, zsh or fish"),
    "man": Command("man", "manual pages of kobox's commands"),
    "schema": Command("schema", "the JSON Schema of what a command prints with --json"),
}
"""Order is the order of ``kobox --help``."""

COMPAT: frozenset[str] = frozenset({"modprobe", "insmod", "rmmod", "lsmod", "depmod", "modinfo"})
"""Commands that are also served under their own name (argv[0]), as kmod's tools are."""
