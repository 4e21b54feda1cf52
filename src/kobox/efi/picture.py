"""The boot chain as a picture: a box for each that was started, an arrow for each check, in SVG."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from kobox.efi.chain import Chain, Step

_WIDTH, _BOX, _GAP, _LEFT = 760, 44, 56, 24
_GREEN, _RED, _GREY = "#2e7d32", "#c62828", "#607d8b"


def svg(chain: Chain) -> str:
    """A drawing that needs nothing from outside; its text is selectable."""
    height = 2 * _LEFT + _BOX + len(chain.steps) * (_BOX + _GAP) + 22 * len(chain.outcomes)
    body = "\n".join(_drawn(chain))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="14">\n'
        f"<title>Boot chain: {'booted' if chain.booted else 'refused'}</title>\n{body}\n</svg>\n"
    )


def _drawn(chain: Chain) -> Iterator[str]:
    y = _LEFT
    yield _box(y, "firmware", _GREY)
    for step in chain.steps:
        yield from _arrow(y + _BOX, step)
        y += _BOX + _GAP
        yield _box(y, step.what, _GREEN if step.passed else _RED)
    y += _BOX + 18
    for outcome in chain.outcomes:
        text = f"MokManager: {outcome.title}: {'done' if outcome.done else outcome.why}"
        yield f'<text x="{_LEFT}" y="{y}" fill="{_GREEN if outcome.done else _RED}">{escape(text)}</text>'
        y += 22


def _box(y: int, text: str, colour: str) -> str:
    return (
        f'<rect x="{_LEFT}" y="{y}" width="260" height="{_BOX}" rx="6" fill="white" stroke="{colour}" '
        f'stroke-width="2"/><text x="{_LEFT + 12}" y="{y + 27}">{escape(text)}</text>'
    )


def _arrow(y: int, step: Step) -> Iterator[str]:
    colour = _GREEN if step.passed else _RED
    x = _LEFT + 130
    yield f'<path d="M{x} {y} V{y + _GAP - 8} m-5 -8 l5 8 l5 -8" fill="none" stroke="{colour}" stroke-width="2"/>'
    said = f"{step.who}: {step.why}"
    yield f'<text x="{x + 16}" y="{y + 24}" fill="{colour}">{escape(said)}</text>'
    yield f'<text x="{x + 16}" y="{y + 42}" font-size="12">{escape(step.by)}</text>'
