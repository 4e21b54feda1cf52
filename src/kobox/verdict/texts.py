"""The error texts that people paste: for each what it means, its causes (likeliest first), how to tell them apart, the
fix. A table and nothing else; ``advice`` matches and fills it in.

``{module}``, ``{file}``, ``{symbol}`` and other names of a pattern's groups may stand in every sentence. ``rules`` of a
cause are those reasons of a verdict that prove it. ``explains`` names the entries that say less of the same.
"""

from __future__ import annotations

from typing import NamedTuple


class Cause(NamedTuple):
    """``tell`` are commands to run, or lines to look for, that show that it is this one."""

    text: str
    fix: str
    tell: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


class Entry(NamedTuple):
    """``patterns`` are regular expressions, searched in the pasted text regardless of case. ``by`` is who says it:
    ``tool`` or ``log``. ``errno``: the name of the error number that the text stands for. ``harmless``: no error."""

    key: str
    title: str
    meaning: str
    patterns: tuple[str, ...]
    causes: tuple[Cause, ...]
    by: str = "tool"
    errno: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    harmless: bool = False


_MODULE = r"(?P<module>[\w-]+)"
_LOG = r"(?:^|[\s\]])" + _MODULE + ": "
_DMESG = "dmesg | tail -n 30"

_REBUILD = (
    "rebuild it against the headers of the running kernel (apt install linux-headers-$(uname -r); dkms autoinstall)"
)
_ENROLL = "enroll the certificate: mokutil --import MOK.der, reboot, confirm in the blue MOK screen"

_OTHER_KERNEL = Cause(
    "it was built for another kernel: release, options or compiler settings in its vermagic differ",
    _REBUILD,
    ("modinfo -F vermagic {file}", "uname -r", "dmesg: {module}: version magic '…' should be '…'"),
    ("vermagic",),
)
_OTHER_LAYOUT = Cause(
    "the release is right, but the kernel was built anew since (another configuration or patch): the CRC of "
    "module_layout or the size of struct module differs",
    _REBUILD + "; reboot first if a new kernel of the same name was installed",
    ("dmesg: {module}: disagrees about version of symbol module_layout", "cat /proc/version"),
    ("struct-module-version", "forced-load"),
)
_NOT_A_MODULE = Cause(
    "the file is no module or is damaged: cut off, a page of the web, a Git LFS pointer, compressed for a tool that "
    "does not unpack, a plain object file",
    "build or copy it again",
    ("file {file}", "kobox readko {file}", "dmesg: Invalid ELF header …"),
    ("elf", "not-elf", "no-module", "no-symbols", "layout", "kernel-crash", "symbol-section"),
)
_ARCHITECTURE = Cause(
    "it is for another processor architecture",
    "build it for this architecture, or take the package for it",
    ("file {file}", "uname -m"),
    ("architecture",),
)
_CHANGED_SYMBOLS = Cause(
    "functions that it uses changed since it was built: their CRCs differ",
    _REBUILD,
    ("dmesg: {module}: disagrees about version of symbol …", "kobox explain {file} --live"),
    ("symbol-version",),
)
_NOT_LOADED = Cause(
    "a module that exports the symbol is not loaded: insmod brings no dependencies",
    "load it with modprobe (after depmod -a), or insmod its dependencies first",
    ("modinfo -F depends {file}", "lsmod"),
    ("dependency-not-loaded", "dependency-missing"),
)
_OTHER_INTERFACE = Cause(
    "this kernel does not have the symbol: it was renamed, removed, or comes with an option that is off here",
    "rebuild the module from a version that supports this kernel, or use a kernel with the option",
    ("grep -w {symbol} /proc/kallsyms", "grep {symbol} /lib/modules/$(uname -r)/modules.symbols"),
    ("symbol-missing", "symbol-not-exported", "bare-lacks"),
)
_GPL_ONLY = Cause(
    "the symbol is exported to GPL modules only, and the module's licence is another (or it uses a proprietary module)",
    "the module's author must license it under the GPL or do without the symbol",
    ("modinfo -F license {file}", "dmesg: {module}: module license '…' taints kernel."),
    ("symbol-gpl-only", "symbol-proprietary"),
)
_NAMESPACE = Cause(
    "the symbol lives in a namespace that the module does not import",
    "add MODULE_IMPORT_NS(…) to the module's source (in quotes since 6.13)",
    ("dmesg: module uses symbol (…) from namespace …, but does not import it",),
    ("symbol-namespace",),
)
_UNSIGNED = Cause(
    "the module is not signed (self-built, DKMS without a key), and Secure Boot or the kernel demands a signature",
    "sign it with your own key (kmodsign or scripts/sign-file; DKMS does it with its MOK key), and " + _ENROLL,
    ("modinfo -F signer {file}", "mokutil --sb-state", "cat /sys/kernel/security/lockdown"),
    ("signature-missing",),
)
_NOT_ENROLLED = Cause(
    "it is signed, but the signer's certificate is not among the keys that the kernel trusts",
    _ENROLL,
    (
        "modinfo -F sig_key {file}",
        "mokutil --list-enrolled",
        "keyctl list %:.secondary_trusted_keys",
        "keyctl list %:.platform",
    ),
    ("signature-unknown-key",),
)
_CHANGED_AFTER = Cause(
    "the module was changed after it was signed: stripped, patched, cut off or recompressed wrongly",
    "sign it again as the last step of the build, or reinstall its package",
    ("modinfo -F signer {file}", "kobox readko {file}"),
    ("signature-damaged", "signature-malformed"),
)
_BLACKLISTED_KEY = Cause(
    "its signer or hash is revoked (dbx, MOK blacklist)",
    "take a newer release that is signed with a current key",
    ("mokutil --list-enrolled --mokx", "dmesg | grep -i blacklist"),
    ("signature-banned",),
)
_CRYPTO = Cause(
    "it is signed with an algorithm that this kernel has not built in",
    "sign it with RSA and SHA-256 (or what CONFIG_MODULE_SIG_HASH says)",
    ("modinfo -F sig_hashalgo {file}", "grep MODULE_SIG /boot/config-$(uname -r)"),
    ("signature-unsupported",),
)
_ROOT = Cause(
    "it was not run as root",
    "use sudo",
    ("id -u",),
)
_CONTAINER = Cause(
    "it was run inside a container, which has no CAP_SYS_MODULE",
    "load the module on the host; a container shares the host's kernel",
    ("grep CapEff /proc/self/status", "systemd-detect-virt --container"),
)
_LOCKED_DOWN = Cause(
    "the kernel is locked down (Secure Boot) and the module is not signed by a trusted key",
    "sign the module and " + _ENROLL + "; or switch Secure Boot off in the firmware",
    (
        "cat /sys/kernel/security/lockdown",
        "mokutil --sb-state",
        "dmesg: Lockdown: …: unsigned module loading is restricted",
    ),
    ("signature-missing", "signature-unknown-key", "signature-unsupported"),
)
_DISABLED = Cause(
    "loading was switched off for the rest of this boot",
    "remove kernel.modules_disabled=1 from sysctl.d (or nomodule from the command line) and reboot",
    ("cat /proc/sys/kernel/modules_disabled", "cat /proc/cmdline"),
    ("modules-disabled",),
)
_KERNEL_BLACKLIST = Cause(
    "module_blacklist= on the kernel command line names it",
    "take it out of the boot loader's configuration and reboot",
    ("cat /proc/cmdline", "dmesg: Module {module} is blacklisted"),
    ("module-blacklist",),
)
_BAD_PARAMETER = Cause(
    "a parameter has a value that its type does not take",
    "correct it on the command line or in /etc/modprobe.d",
    ("modinfo -p {file}", "modprobe -c | grep '^options {module}'", "dmesg: {module}: `…' invalid for parameter `…'"),
    ("parameter", "parameter-lockdown"),
)
INIT = Cause(
    "the module's own init function refused",
    "read what it logged; its documentation says what it needs",
    (_DMESG,),
)
_NO_DEVICE = Cause(
    "the hardware that it drives is not there, not switched on in the firmware, or has another id",
    "check that the device is listed and that the module knows its id",
    ("lspci -nnk", "lsusb", "modinfo -F alias {file}"),
)
_TAKEN = Cause(
    "another driver holds the device or resource already",
    "unbind or blacklist the other driver",
    ("lspci -nnk", _DMESG),
)
_CPU = Cause(
    "the processor or platform lacks a feature that it needs (virtualisation, AES, an ACPI device)",
    "switch the feature on in the firmware, or do without the module",
    ("lscpu", _DMESG),
)
_HOLDERS = Cause(
    "other modules use it",
    "remove those first: modprobe -r (or rmmod) the modules that lsmod lists behind it",
    ("lsmod | grep -w {module}", "ls /sys/module/{module}/holders"),
)
_OPEN = Cause(
    "something has it open: a mounted file system, a network interface that is up, a device file, a process",
    "unmount, take the interface down, stop the process",
    ("cat /sys/module/{module}/refcnt", "grep -w {module} /proc/mounts", "ip link", "lsof /dev/…"),
)
_PERMANENT = Cause(
    "it has no exit function (it is permanent), or its init crashed",
    "it stays until the next boot",
    ("grep -w {module} /proc/modules  # [permanent], or state Loading",),
)
_DUPLICATE_EXPORT = Cause(
    "it exports a symbol that somebody exports already",
    "load only one of the two, or rename the symbol",
    ("dmesg: {module}: exports duplicate symbol …",),
    ("export-duplicate",),
)
_PLACED = Cause(
    "its code cannot be relocated or has sections that are writable and executable: built with wrong compiler flags",
    "build it with the kernel's build system (make -C /lib/modules/$(uname -r)/build M=$PWD)",
    ("dmesg: overflow in relocation type …", "dmesg: has invalid WRITE|EXEC flags"),
    ("relocation", "write-exec", "symbol-common"),
)
_LIVEPATCH = Cause(
    "it is a livepatch, and this kernel has no livepatch support",
    "use a kernel with CONFIG_LIVEPATCH=y",
    ("grep LIVEPATCH /boot/config-$(uname -r)",),
    ("livepatch-support",),
)

ENTRIES: tuple[Entry, ...] = (
    # what the tools say
    Entry(
        "invalid-module-format",
        "Invalid module format (insmod), Exec format error (modprobe)",
        "the kernel does not take the file for a module of its own (ENOEXEC); the kernel log says which check failed",
        (
            r"could not (?:insert|load)(?: module)? (?P<file>\S+?): (?:Invalid module format|Exec format error)",
            "Invalid module format",
            "Exec format error",
        ),
        (
            _OTHER_KERNEL,
            _OTHER_LAYOUT,
            _NOT_A_MODULE,
            _ARCHITECTURE,
            _DUPLICATE_EXPORT,
            _PLACED,
            _LIVEPATCH,
        ),
        errno=("ENOEXEC",),
    ),
    Entry(
        "unknown-symbol-in-module",
        "Unknown symbol in module",
        "the module uses a function or variable that the kernel and its loaded modules do not offer it (ENOENT); the "
        "kernel log names every one",
        (
            r"could not (?:insert|load)(?: module)? (?P<file>\S+?): Unknown symbol in module",
            "Unknown symbol in module",
        ),
        (_NOT_LOADED, _OTHER_INTERFACE, _GPL_ONLY),
        errno=("ENOENT",),
    ),
    Entry(
        "wrong-symbol-version",
        "Module has wrong symbol version",
        "insmod's words for ESRCH; today's kernels answer EINVAL or ENOEXEC instead",
        ("Module has wrong symbol version",),
        (_CHANGED_SYMBOLS, _OTHER_LAYOUT),
        errno=("ESRCH",),
    ),
    Entry(
        "required-key-not-available",
        "Required key not available",
        "the kernel demands a signed module and knows no key for this one (ENOKEY; newer kernels say EKEYREJECTED)",
        ("Required key not available",),
        (_NOT_ENROLLED, _UNSIGNED, _CHANGED_AFTER),
        errno=("ENOKEY",),
    ),
    Entry(
        "key-was-rejected",
        "Key was rejected by service",
        "the kernel refuses the module's signature (EKEYREJECTED): none or an unknown one while signatures are "
        "enforced, or one that does not match",
        ("Key was rejected by service",),
        (_NOT_ENROLLED, _UNSIGNED, _CHANGED_AFTER, _BLACKLISTED_KEY, _CRYPTO),
        errno=("EKEYREJECTED",),
    ),
    Entry(
        "bad-message",
        "Bad message",
        "a signature is appended to the module, but it cannot be parsed (EBADMSG)",
        (r"could not (?:insert|load).*Bad message", "^Bad message$"),
        (_CHANGED_AFTER,),
        errno=("EBADMSG",),
    ),
    Entry(
        "package-not-installed",
        "Package not installed",
        "the signature needs an algorithm that the kernel does not have (ENOPKG)",
        ("Package not installed",),
        (_CRYPTO,),
        errno=("ENOPKG",),
    ),
    Entry(
        "operation-not-permitted",
        "Operation not permitted",
        "the kernel forbids loading or removing (EPERM)",
        (
            r"could not (?:insert|load|remove)(?: module)? (?P<file>\S+?): Operation not permitted",
            "Operation not permitted",
        ),
        (_ROOT, _LOCKED_DOWN, _CONTAINER, _KERNEL_BLACKLIST, _DISABLED),
        errno=("EPERM",),
    ),
    Entry(
        "module-in-use",
        "Module is in use; Resource temporarily unavailable",
        "a module cannot be removed while something refers to it (EAGAIN)",
        (
            rf"Module '?{_MODULE}'? is in use(?: by: (?P<holders>[\w ,-]+))?",
            "Module is in use",
            "Module in use",
            r"could not remove (?:module )?'?(?P<module>[\w-]+?)'?: Resource temporarily unavailable",
            "Resource temporarily unavailable",
        ),
        (_HOLDERS, _OPEN, _PERMANENT),
        errno=("EAGAIN", "EWOULDBLOCK"),
    ),
    Entry(
        "busy",
        "Device or resource busy",
        "on removal: the module is permanent, being loaded, or its init crashed; on loading: another driver has the "
        "device, or a load of the same module failed meanwhile (EBUSY)",
        ("Device or resource busy",),
        (_TAKEN, _PERMANENT),
        errno=("EBUSY",),
    ),
    Entry(
        "module-not-found",
        "FATAL: Module not found",
        "modprobe knows no module, alias or command of that name for this release",
        (
            r"Module (?P<module>\S+) not found(?: in directory (?P<directory>\S+))?",
            "Module not found",
        ),
        (
            Cause(
                "the running kernel's modules are not installed (a kernel was updated and its modules removed, or the "
                "container or initramfs has none)",
                "reboot into the installed kernel, or install linux-image-$(uname -r) (Ubuntu: linux-modules-extra-…)",
                ("uname -r; ls /lib/modules", "ls {directory}"),
            ),
            Cause(
                "the module is not built for this kernel: its option is off, or DKMS did not build it",
                "dkms autoinstall, or install a kernel that has it",
                ("dkms status", "grep -i {module} /boot/config-$(uname -r)", "find /lib/modules -name '{module}*'"),
            ),
            Cause(
                "its file is there, but the index is old",
                "depmod -a",
                ("find /lib/modules/$(uname -r) -name '{module}.ko*'",),
            ),
            Cause(
                "it is built into the kernel under another name, or was renamed",
                "nothing needs to be loaded, or load it by its new name",
                ("grep {module} /lib/modules/$(uname -r)/modules.builtin",),
                ("builtin",),
            ),
            Cause(
                "the name is misspelt",
                "look for names that are alike",
                ("kobox explain {module} --live",),
                ("module-missing",),
            ),
        ),
    ),
    Entry(
        "module-builtin",
        "Module is builtin",
        "the module is part of the kernel image: it can be neither loaded nor removed",
        (r"Module (?P<module>\S+) is (?:builtin|built-in)",),
        (
            Cause(
                "the kernel was built with this option as y",
                "set its parameters on the kernel command line: {module}.parameter=value; blacklists do not concern it "
                "(initcall_blacklist= may)",
                ("grep {module} /lib/modules/$(uname -r)/modules.builtin",),
                ("builtin-name",),
            ),
        ),
    ),
    Entry(
        "not-loaded",
        "Module is not currently loaded",
        "no module of that name is loaded",
        (r"Module (?P<module>\S+) is not currently loaded",),
        (
            Cause("it is built in, or was never loaded", "nothing is to be removed", ("lsmod | grep {module}",)),
            Cause("the name is the file's, not the module's (dashes are underscores)", "use lsmod's spelling"),
        ),
    ),
    Entry(
        "invalid-parameters",
        "Invalid parameters (insmod), Invalid argument (modprobe)",
        "the kernel did not accept a parameter or a symbol's version, or the module's init refused (EINVAL); the log "
        "tells which",
        (
            r"could not (?:insert|load)(?: module)? (?P<file>\S+?): (?:Invalid parameters|Invalid argument)",
            "Invalid parameters",
            "Invalid argument",
        ),
        (_BAD_PARAMETER, _CHANGED_SYMBOLS, _NAMESPACE, INIT),
        errno=("EINVAL", "ERANGE"),
    ),
    Entry(
        "unknown-symbol-or-parameter",
        "Unknown symbol in module, or unknown parameter (see dmesg)",
        "modprobe's words for ENOENT: the kernel log says whether a symbol was missing",
        (r"Unknown symbol in module, or unknown parameter",),
        (_NOT_LOADED, _OTHER_INTERFACE, _GPL_ONLY, _BAD_PARAMETER),
        explains=("unknown-symbol-in-module",),
    ),
    Entry(
        "no-such-device",
        "No such device",
        "the module was loaded, found nothing to drive, and left again (ENODEV)",
        (r"could not (?:insert|load)(?: module)? (?P<file>\S+?): No such device", "No such device"),
        (_NO_DEVICE, _CPU, _TAKEN),
        errno=("ENODEV", "ENXIO"),
    ),
    Entry(
        "cannot-allocate-memory",
        "Cannot allocate memory",
        "no memory for the module or in its init (ENOMEM)",
        ("Cannot allocate memory",),
        (
            Cause(
                "its init function asked for more memory than there is (large DMA buffers, a too large parameter)",
                "make its buffers smaller by its parameters; load it early at boot",
                (_DMESG, "free -m", "modinfo -p {file}"),
            ),
            Cause(
                "its static per-CPU data exceeds what is kept for modules",
                "allocate it at run time (alloc_percpu)",
                ("dmesg: Could not allocate … bytes percpu data",),
                ("percpu",),
            ),
            Cause(
                "its static data is larger than the module area",
                "allocate it at run time (vmalloc)",
                ("size {file}",),
                ("no-memory",),
            ),
        ),
        errno=("ENOMEM",),
    ),
    Entry(
        "file-exists",
        "File exists",
        "a module of that name is loaded already (EEXIST), or what it registers exists",
        ("could not (?:insert|load).*File exists", "File exists"),
        (
            Cause(
                "the same module is loaded, perhaps the distribution's own version of it",
                "rmmod {module} first",
                ("lsmod | grep -w {module}", "cat /sys/module/{module}/version"),
                ("already-loaded",),
            ),
            Cause(
                "its init registers a name (device, sysfs entry, protocol) that another driver has",
                "unload or blacklist the other driver",
                (_DMESG,),
                ("parameter-twice", "builtin-name"),
            ),
        ),
        errno=("EEXIST",),
    ),
    Entry(
        "permission-denied",
        "Permission denied",
        "a file cannot be read, or a security module refuses (EACCES)",
        (r"could not (?:insert|load).*Permission denied",),
        (
            Cause("it was not run as root", "use sudo", ("id -u",)),
            Cause(
                "SELinux, AppArmor or another security module forbids it",
                "look for the denial and allow it, or restore the file's label (restorecon)",
                ("journalctl -k | grep -i denied", "ls -Z {file}"),
            ),
        ),
        errno=("EACCES",),
    ),
    Entry(
        "no-such-file",
        "could not load module FILE: No such file or directory",
        "insmod takes a path, not a module's name",
        (r"could not (?:load|open)(?: module)? (?P<file>\S+?): No such file or directory",),
        (
            Cause("a name was given where a file is expected", "modprobe {file}, or give the path of the .ko"),
            Cause("the file is elsewhere", "look for it", ("find /lib/modules/$(uname -r) -name '{file}*'",)),
        ),
    ),
    Entry(
        "function-not-implemented",
        "Function not implemented",
        "the kernel has no module support (ENOSYS): built without CONFIG_MODULES, or not the kernel one thinks "
        "(WSL 1, gVisor, a unikernel)",
        ("could not (?:insert|load).*Function not implemented",),
        (
            Cause(
                "the kernel cannot load modules at all",
                "build the driver in, or use another kernel",
                ("zgrep CONFIG_MODULES= /proc/config.gz /boot/config-$(uname -r)",),
                ("no-module-support",),
            ),
        ),
        errno=("ENOSYS",),
    ),
    # what the kernel logs
    Entry(
        "log-version-magic",
        "version magic '…' should be '…'",
        "the module was built for another kernel or other options",
        (
            _LOG + r"version magic '(?P<built>[^']*)' should be '(?P<expected>[^']*)'",
            r"version magic '(?P<built>[^']*)' should be '(?P<expected>[^']*)'",
            r"version magic",
        ),
        (
            Cause(
                "the release differs: the module belongs to another kernel version",
                _REBUILD,
                ("uname -r", "modinfo -F vermagic {file}"),
                ("vermagic",),
            ),
            Cause(
                "the release is the same, an option differs (SMP, preempt, modversions, a patch's word)",
                "use headers of exactly this kernel flavour; a kernel of one's own needs modules of its own",
                ("cat /proc/version",),
            ),
        ),
        "log",
        explains=("invalid-module-format",),
    ),
    Entry(
        "log-disagrees",
        "disagrees about version of symbol …; no symbol version for …",
        "the CRC that the module was built with differs from the exporter's: a type or prototype behind the symbol "
        "changed",
        (
            _LOG + r"(?:disagrees about version of symbol|no symbol version for) (?P<symbol>\w+)",
            r"(?:disagrees about version of symbol|no symbol version for)(?: (?P<symbol>\w+))?",
        ),
        (
            Cause(
                "it was built against the headers of another kernel build",
                _REBUILD,
                (
                    "modprobe --dump-modversions {file} | grep -w {symbol}",
                    "grep -w {symbol} /usr/src/linux-headers-$(uname -r)/Module.symvers",
                ),
                ("struct-module-version", "symbol-version"),
            ),
            Cause(
                "the symbol belongs to another out-of-tree module, which was rebuilt alone",
                "rebuild both, the exporting one first (KBUILD_EXTRA_SYMBOLS)",
                ("modinfo -F depends {file}",),
                ("symbol-version",),
            ),
        ),
        "log",
        explains=("invalid-module-format", "invalid-parameters", "log-unknown-symbol-einval", "wrong-symbol-version"),
    ),
    Entry(
        "log-unknown-symbol",
        "Unknown symbol … (err -2)",
        "nobody offers the symbol to this module",
        (_LOG + r"Unknown symbol (?P<symbol>\S+) \(err (?:-2|0)\)", r"Unknown symbol (?P<symbol>\w+) \(err (?:-2|0)\)"),
        (_NOT_LOADED, _OTHER_INTERFACE, _GPL_ONLY),
        "log",
        explains=("unknown-symbol-in-module", "unknown-symbol-or-parameter"),
    ),
    Entry(
        "log-unknown-symbol-einval",
        "Unknown symbol … (err -22)",
        "the symbol is there, but not for this module: another version, or a namespace that is not imported",
        (_LOG + r"Unknown symbol (?P<symbol>\S+) \(err -22\)", r"Unknown symbol (?P<symbol>\w+) \(err -22\)"),
        (_CHANGED_SYMBOLS, _NAMESPACE),
        "log",
        explains=("invalid-parameters",),
    ),
    Entry(
        "log-namespace",
        "module uses symbol … from namespace …, but does not import it",
        "exports of a namespace are for modules that name it",
        (
            _LOG
            + r"module uses symbol \(?(?P<symbol>\w+)\)? from namespace (?P<namespace>\w+), but does not import it",
            r"module uses symbol \(?(?P<symbol>\w+)\)? from namespace (?P<namespace>\w+)",
        ),
        (
            Cause(
                "the source lacks MODULE_IMPORT_NS({namespace})",
                'add MODULE_IMPORT_NS({namespace}); to it (MODULE_IMPORT_NS("{namespace}"); since 6.13)',
                ("modinfo -F import_ns {file}",),
                ("symbol-namespace",),
            ),
        ),
        "log",
        explains=("log-unknown-symbol-einval", "invalid-parameters"),
    ),
    Entry(
        "log-rejected",
        "Loading of … is rejected",
        "the kernel enforces signatures (module.sig_enforce or CONFIG_MODULE_SIG_FORCE)",
        (r"Loading of (?P<what>[\w ]*module[\w ]*) is rejected",),
        (_UNSIGNED, _NOT_ENROLLED, _CRYPTO),
        "log",
        explains=("key-was-rejected", "required-key-not-available"),
    ),
    Entry(
        "log-lockdown",
        "Lockdown: …: unsigned module loading is restricted",
        "the kernel is locked down, as Secure Boot makes most distributions' kernels do",
        (
            r"Lockdown: (?P<program>[^:]+): (?:unsigned module loading|unsafe module parameters) is restricted",
            r"Lockdown: (?P<program>[^:]+): [^\n]*module[^\n]*restricted",
        ),
        (_UNSIGNED, _NOT_ENROLLED),
        "log",
        explains=("operation-not-permitted",),
    ),
    Entry(
        "log-verification-failed",
        "module verification failed: signature and/or required key missing - tainting kernel",
        "the module was loaded all the same; the kernel notes that it cannot vouch for it (taint E)",
        (_LOG + "module verification failed", "module verification failed"),
        (
            Cause(
                "it is built by oneself or a vendor and not signed: usual, harmless where signatures are not enforced",
                "nothing, or sign it and " + _ENROLL,
                ("modinfo -F signer {file}",),
                ("signature-missing",),
            ),
            Cause(
                "it is signed with a key that this kernel does not know",
                _ENROLL,
                ("modinfo -F sig_key {file}",),
                ("signature-unknown-key",),
            ),
        ),
        "log",
        harmless=True,
    ),
    Entry(
        "log-out-of-tree",
        "loading out-of-tree module taints kernel",
        "the module was not built with the kernel's sources (taint O); it says nothing of its quality",
        (_LOG + "loading out-of-tree module taints kernel", "loading out-of-tree module"),
        (Cause("every module from elsewhere does this", "nothing", ("modinfo -F intree {file}",)),),
        "log",
        harmless=True,
    ),
    Entry(
        "log-licence",
        "module license '…' taints kernel",
        "the licence is not GPL-compatible (taint P): GPL-only symbols are closed to it",
        (_LOG + "module license '(?P<license>[^']*)' taints kernel", "module license '(?P<license>[^']*)' taints"),
        (
            Cause(
                "it is proprietary", "nothing, unless GPL-only symbols are missing then", ("modinfo -F license {file}",)
            ),
            Cause("MODULE_LICENSE() is missing or misspelt in its source", 'MODULE_LICENSE("GPL");'),
        ),
        "log",
        harmless=True,
    ),
    Entry(
        "log-blacklisted",
        "Module … is blacklisted",
        "the kernel itself refuses the module by name (EPERM)",
        (rf"Module {_MODULE} is blacklisted",),
        (_KERNEL_BLACKLIST,),
        "log",
        explains=("operation-not-permitted",),
    ),
    Entry(
        "log-duplicate-symbol",
        "exports duplicate symbol … (owned by …)",
        "two exporters of one name cannot be loaded together (ENOEXEC)",
        (_LOG + r"exports duplicate symbol (?P<symbol>\w+) \(owned by (?P<owner>\w+)\)", "exports duplicate symbol"),
        (
            Cause(
                "the driver is loaded or built in already under another name ({owner})",
                "unload {owner}, or do without this one",
                ("lsmod | grep -w {owner}",),
                ("export-duplicate",),
            ),
        ),
        "log",
        explains=("invalid-module-format",),
    ),
    Entry(
        "log-parameter",
        "`…' invalid for parameter `…'",
        "a value does not fit the parameter's type or range",
        (
            _LOG + r"`(?P<value>[^'`]*)' (?:invalid|too large) for parameter `(?P<parameter>[^'`]*)'",
            r"`(?P<value>[^'`]*)' (?:invalid|too large) for parameter `(?P<parameter>[^'`]*)'",
        ),
        (_BAD_PARAMETER,),
        "log",
        explains=("invalid-parameters",),
    ),
    Entry(
        "log-unknown-parameter",
        "unknown parameter '…' ignored",
        "the module has no parameter of that name; it is loaded without it",
        (
            _LOG + r"unknown parameter '(?P<parameter>[^']*)' ignored",
            r"unknown parameter '(?P<parameter>[^']*)' ignored",
        ),
        (
            Cause(
                "the name is misspelt, or the parameter went away with a newer version",
                "take it out of the command line or /etc/modprobe.d",
                ("modinfo -p {file}", "grep -r '{parameter}' /etc/modprobe.d /proc/cmdline"),
                ("unknown-parameter",),
            ),
        ),
        "log",
        harmless=True,
    ),
    Entry(
        "log-this-module",
        ".gnu.linkonce.this_module section size must match the kernel's built struct module size",
        "the module's struct module has another size than the kernel's: another release or configuration",
        (r"module (?P<module>[\w-]+): \.gnu\.linkonce\.this_module", r"\.gnu\.linkonce\.this_module"),
        (_OTHER_LAYOUT, _OTHER_KERNEL),
        "log",
        explains=("invalid-module-format",),
    ),
    Entry(
        "log-elf",
        "Invalid ELF header …; module has no symbols (stripped?); No module found in object",
        "the file is not sound, or no module",
        (
            r"(?P<line>Invalid ELF [^\n]+)",
            r"(?P<line>Invalid architecture in ELF header: \d+)",
            _LOG + r"(?P<line>module has no symbols \(stripped\?\)|No module found in object)",
            r"(?P<line>ELF Spec violation[^\n]*)",
        ),
        (
            _NOT_A_MODULE,
            _ARCHITECTURE,
            Cause(
                "it was stripped of its symbol table",
                "strip modules with --strip-debug only",
                ("readelf -S {file}",),
                ("no-symbols",),
            ),
        ),
        "log",
        explains=("invalid-module-format",),
    ),
    Entry(
        "log-untrusted-key",
        "PKCS#7 signature not signed with a trusted key",
        "the signature is sound, its signer unknown to the kernel",
        (r"PKCS#7 signature not signed with a trusted key",),
        (_NOT_ENROLLED,),
        "log",
        explains=("key-was-rejected", "required-key-not-available"),
    ),
    Entry(
        "log-already-loaded",
        "module is already loaded; sysfs: cannot create duplicate filename '/module/…'",
        "the name is taken in /sys/module: by built-in code, or by a parameter of the same name",
        (_LOG + "module is already loaded", r"cannot create duplicate filename '/module/(?P<module>[\w-]+)"),
        (
            Cause(
                "the driver is built into this kernel",
                "nothing needs to be loaded; rename the module if it is something else",
                ("ls /sys/module/{module}",),
                ("builtin-name", "parameter-twice"),
            ),
        ),
        "log",
        explains=("invalid-parameters", "file-exists"),
    ),
    Entry(
        "log-percpu",
        "Could not allocate … bytes percpu data",
        "static per-CPU variables of modules share a small reserve",
        (_LOG + r"Could not allocate (?P<bytes>\d+) bytes percpu data", "bytes percpu data"),
        (
            Cause(
                "the module's own are too large, or those of other modules fill it",
                "allocate them with alloc_percpu(), or raise percpu_alloc= on the kernel command line",
                ("readelf -S {file} | grep percpu",),
                ("percpu",),
            ),
        ),
        "log",
        explains=("cannot-allocate-memory",),
    ),
    Entry(
        "log-btf",
        "failed to validate module BTF",
        "the module's type information does not fit the running kernel's",
        (r"failed to validate module \[(?P<module>[\w-]+)\] BTF",),
        (
            Cause(
                "it was built against another vmlinux than the one that runs",
                _REBUILD + "; or strip the section: objcopy -R .BTF {file}",
                ("cat /proc/version", "readelf -S {file} | grep BTF"),
                ("btf",),
            ),
        ),
        "log",
        explains=("invalid-parameters",),
    ),
    Entry(
        "log-relocation",
        "overflow in relocation type …; Skipping invalid relocation target",
        "the module's code cannot be placed where modules lie",
        (
            r"overflow in relocation type (?P<type>\d+)",
            "Skipping invalid relocation target",
            r"`(?P<module>[\w-]+)' likely not compiled with -mcmodel=kernel",
            "Unknown rela relocation",
        ),
        (_PLACED, _NOT_A_MODULE),
        "log",
        explains=("invalid-module-format",),
    ),
    Entry(
        "log-write-exec",
        "has invalid WRITE|EXEC flags",
        "a section of the module is both writable and executable",
        (_LOG + r"section (?P<section>\S+) \(index \d+\) has invalid WRITE\|EXEC flags", r"invalid WRITE\|EXEC flags"),
        (_PLACED,),
        "log",
        explains=("invalid-module-format",),
    ),
    Entry(
        "log-gave-up",
        "gave up waiting for init of module …",
        "it needs a module whose init has not ended within 30 seconds",
        (_LOG + r"gave up waiting for init of module (?P<owner>[\w-]+)",),
        (
            Cause(
                "{owner} hangs in its init (no firmware, no hardware answer) or crashed",
                "find out why {owner} hangs; a crashed module stays until the next boot",
                ("cat /sys/module/{owner}/initstate", _DMESG),
            ),
        ),
        "log",
        explains=("busy",),
    ),
    Entry(
        "log-proprietary",
        "module using GPL-only symbols uses symbols … from proprietary module …",
        "a module may use GPL-only symbols or a proprietary module's, not both",
        (
            _LOG
            + r"module using GPL-only symbols uses symbols (?P<symbol>\w+) from proprietary module (?P<owner>[\w-]+)",
        ),
        (_GPL_ONLY,),
        "log",
        explains=("log-unknown-symbol", "unknown-symbol-in-module"),
    ),
)
