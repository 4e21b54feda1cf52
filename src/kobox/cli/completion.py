"""``kobox completion``: the script that teaches a shell to complete kobox's command lines."""

from __future__ import annotations

import argparse
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")
_SCRIPTS = Path(__file__).parent / "completions"

EPILOG = """\
examples:
  source <(kobox completion bash)                                  in ~/.bashrc
  kobox completion bash > ~/.local/share/bash-completion/completions/kobox
  kobox completion zsh > "${fpath[1]}/_kobox"                      then start zsh anew
  kobox completion fish > ~/.config/fish/completions/kobox.fish"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    print((_SCRIPTS / args.shell).read_text(), end="")
    return 0
