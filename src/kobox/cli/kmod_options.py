"""The options of the commands with kmod's names, in the order of kmod's own tables.

getopt reports an option under its letter, else under its first long name. The order is kept because glibc names the
candidates of an ambiguous abbreviation in it.
"""

from __future__ import annotations

from kobox.cli.options import Operand, Usage, option

_WHERE, _WHAT, _HOW, _TELL, _ALL = "where (one is needed)", "what", "how", "what to tell", "every command"
_IGNORED = "taken and ignored, as kmod does"

_VERSION = option("-V, --version", "print kobox's version", _ALL)
_HELP = option("-h, --help", "print this help", _ALL)
_MESSAGES = (
    option("-s, --syslog", "messages to syslog"),
    option("-v, --verbose", "more messages"),
    option("-V, --version", "print kobox's version"),
    option("-h, --help", "print this help"),
)
_SESSION = option("--session SESSION", "that session (default: $KOBOX_SESSION, else the only one that runs)")
_FORCE = (
    option("-f, --force", "--force-modversion and --force-vermagic"),
    option("--force-modversion", "pass over the versions of symbols"),
    option("--force-vermagic", "pass over the version magic"),
)

MODPROBE = Usage(
    "modprobe",
    "add and remove modules, with what they need, by the rules of a system's configuration",
    (
        "[OPTION ...] MODULE [PARAMETER=VALUE ...]",
        "[OPTION ...] -a MODULE ...",
        "[OPTION ...] -r [-a] MODULE ...",
        "[OPTION ...] -c",
    ),
    (
        option("-a, --all", "every operand is a module", _WHAT),
        option("-r, --remove", "remove modules", _WHAT),
        option("--remove-dependencies, --remove-holders", "remove, with the modules that use it", _WHAT),
        option("-w, --wait MSEC", "wait for a module in use to become free", _HOW),
        option("-R, --resolve-alias, --show-alias", "the modules that a name stands for", _WHAT),
        option("--first-time", "fail if there is nothing to do", _HOW),
        option("-i, --ignore-install, --ignore-remove", "pass over install and remove commands", _HOW),
        option("-b, --use-blacklist", "a blacklist also stops a module asked for by name", _HOW),
        *(one._replace(group=_HOW) for one in _FORCE),
        option("-D, --show-depends", "the steps of a load, nothing else", _WHAT),
        option("-c, --showconfig, --show-config", "configuration and indexes", _WHAT),
        option("--show-modversions, --dump-modversions", "versions of the symbols a module needs", _WHAT),
        option("--show-exports", "versions of the symbols a module exports", _WHAT),
        option("-n, --dry-run, --show", "do nothing; with -v, show it", _WHAT),
        option("-C, --config FILE|DIR", "read this configuration instead (may be repeated)", _HOW),
        option("-d, --dirname DIR", "modules of DIR, configuration of this host (as kmod)", _WHERE),
        option("-S, --set-version REL", "this release instead of the running kernel's", _HOW),
        option("-s, --syslog", "messages to syslog", _HOW),
        option("-q, --quiet", "no messages", _HOW),
        option("-v, --verbose", "more messages", _HOW),
        _VERSION,
        _HELP,
        _SESSION._replace(group=_WHERE),
        option("--root DIR", "modules and configuration of the system in DIR", _WHERE),
        option("--live", "this host's own kernel", _WHERE),
        option("--json", "the plan with its reasons, as JSON", _HOW),
    ),
    (Operand("MODULE", "a module's name, an alias, or with -r a name"), Operand("PARAMETER=VALUE", "", many=True)),
    group_order=(_WHERE, _WHAT, _HOW, _ALL),
    epilog="example: kobox modprobe --root /mnt -S 6.1.0-56-amd64 --show-depends btrfs",
)

INSMOD = Usage(
    "insmod",
    "insert one module file; nothing is loaded before it",
    ("[OPTION ...] FILE [PARAMETER=VALUE ...]",),
    (
        _SESSION,
        option("--live", "insert into this host's kernel"),
        option("--root DIR", "a directory has no kernel: refuses"),
        *_FORCE,
        *_MESSAGES,
        option("--json", "the result as JSON"),
        option("-p", _IGNORED),
    ),
    (Operand("FILE.ko", "the module file"), Operand("PARAMETER=VALUE", "", many=True)),
    epilog="example: kobox insmod ./hello.ko my_param=7",
)

RMMOD = Usage(
    "rmmod",
    "remove modules from a kernel",
    ("[OPTION ...] MODULE|FILE ...",),
    (
        _SESSION,
        option("--live", "remove from this host's kernel"),
        option("--root DIR", "a directory has no kernel: refuses"),
        option("-f, --force", "also a module in use, if the kernel was built to allow it: dangerous"),
        *_MESSAGES,
        option("--json", "the results as JSON"),
        option("-w", _IGNORED),
    ),
    (Operand("LOADED", "a loaded module's name, or its file", many=True),),
    epilog="example: kobox rmmod hello",
)

LSMOD = Usage(
    "lsmod",
    "list the modules of a kernel",
    ("[--session SESSION | --live | --root DIR] [--json]",),
    (
        _SESSION,
        option("--live", "this host's kernel"),
        option("--root DIR", "what DIR/proc/modules says (a copy of a machine's)"),
        option("--json", "records instead of columns"),
        *(one._replace(help=_IGNORED) for one in _MESSAGES[:2]),
        *_MESSAGES[2:],
    ),
    epilog="example: kobox lsmod --live --json",
)

DEPMOD = Usage(
    "depmod",
    "make the index files of a release's modules",
    ("[OPTION ...] [RELEASE]", "[OPTION ...] RELEASE /path/to/FILE.ko ..."),
    (
        option("-a, --all", "all modules (as without operands)", _WHAT),
        option("-A, --quick", "only if a module is newer than modules.dep", _WHAT),
        option("-b, --basedir DIR", "modules of DIR, depmod.d of this host (as kmod)", _WHERE),
        option(
            "-m, --moduledir DIR", "where releases are below that, instead of lib/modules or usr/lib/modules", _WHERE
        ),
        option("-o, --outdir DIR", "write below DIR", _WHERE),
        option("-C, --config FILE|DIR", "read this instead of depmod.d (may be repeated)", _WHAT),
        option("-E, --symvers FILE", "Module.symvers: also symbols of another version", _TELL),
        option("-F, --filesyms FILE", "System.map", _TELL),
        option("-e, --errsyms", "symbols that nobody exports; needs -E or -F", _TELL),
        option("-u", _IGNORED, _HOW),
        option("--unresolved-error", _IGNORED, _HOW),
        option("-q", _IGNORED, _HOW),
        option("-r", _IGNORED, _HOW),
        option("-v, --verbose", "which symbol makes a module need another", _TELL),
        option("-n, --show, --dry-run", "write nothing, print every text file", _WHAT),
        option("-P, --symbol-prefix CHAR", "a character that doesn't count in front of symbol names", _WHAT),
        option("-w, --warn", "values that an index has twice", _TELL),
        option("--map", _IGNORED, _HOW),
        _VERSION,
        _HELP,
        option("--root DIR", "modules and depmod.d of the system in DIR", _WHERE),
        option("--live", "this host's own modules", _WHERE),
        option(
            "--index-order ORDER",
            "children-first (kmod up to 33) or parents-first (34); without it as the kmod of that system has it, else"
            " children-first",
            _HOW,
            ("children-first", "parents-first"),
        ),
        option("--no-cache", "read every module again", _HOW),
        option("-j, --jobs N", "processes to use", _HOW),
        option("--json", "what was done, as a record", _TELL),
    ),
    (Operand("REL", "a kernel release"), Operand("FILE.ko", "only these modules", many=True)),
    text="Without RELEASE: the running kernel's, with --root the only one that is there. -n that only shows and -o that"
    " writes elsewhere need no place.",
    group_order=(_WHERE, _WHAT, _TELL, _HOW, _ALL),
    epilog="example: kobox depmod --root /mnt 6.1.0-56-amd64",
)

MODINFO = Usage(
    "modinfo",
    "what modules say of themselves",
    ("[OPTION ...] NAME|ALIAS|FILE ...", "[OPTION ...] --all"),
    (
        option("-a, --author", "only the authors"),
        option("-d, --description", "only the description"),
        option("-l, --license", "only the licence"),
        option("-p, --parameters", "only the parameters"),
        option("-n, --filename", "only the file's name"),
        option("-0, --null", "end entries with NUL, write fields as name=value"),
        option("-m, --modname", "operands are names, neither aliases nor files"),
        option("-F, --field FIELD", "only this field: what modules call it, or filename, name, parm"),
        option("-k, --set-version REL", "this release instead"),
        option("-b, --basedir DIR", "modules of the running kernel's release in DIR (as kmod)"),
        option("-V, --version", "print kobox's version"),
        option("-h, --help", "print this help"),
        option("--session SESSION", "modules of that session's system (default: the only one that runs)"),
        option("--root DIR", "modules of the system in DIR, of the only release that it has"),
        option("--all", "every module of modules.dep"),
        option("--json", "records"),
    ),
    (Operand("NAME|ALIAS|FILE.ko", "whose words are shown", many=True),),
    epilog="example: kobox modinfo --root /mnt -k 6.1.0-56-amd64 --json --all",
)

KMOD_USAGES = {usage.name: usage for usage in (MODPROBE, INSMOD, RMMOD, LSMOD, DEPMOD, MODINFO)}
