#!/usr/bin/env python3
"""Draws docs/lanes.svg, the picture of the README: `docs/lanes.py > docs/lanes.svg`. tests/readme.rs compares both."""

WIDTH, HEIGHT = 760, 352
LANES = 4
DEAD = 2  # the lane whose worker has just ended
LEFT, STEP, LANE = 20, 184, 168  # of lanes, in pixels
QUEUE, WORKER = (112, 44), (194, 52)  # top and height

INK, FAINT, PAPER = "#1f2937", "#6b7280", "#ffffff"
SOCKET, LIVE, LOST, RULER = "#dbeafe", "#dcfce7", "#fee2e2", "#ede9fe"


def text(x, y, words, size=13, ink=INK, anchor="middle", bold=False):
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{ink}" text-anchor="{anchor}"{weight}>{words}</text>'


def box(x, y, width, height, fill, dashed=False, ink=INK):
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{ink}"{dash}/>'


def arrow(path, ink=INK, dashed=False):
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{ink}" stroke-width="1.5"{dash} marker-end="url(#head)"/>'


def queue(x, waiting):
    """The listening sockets of a lane, and the connections that wait there."""
    top, height = QUEUE
    shapes = [box(x, top, LANE - 24, height, SOCKET), text(x + 8, top + 18, "its own sockets", 12, anchor="start")]
    for place in range(waiting):
        shapes.append(f'<rect x="{x + 8 + 14 * place}" y="{top + 26}" width="10" height="10" fill="{INK}"/>')
    return shapes


def worker(x, lane):
    top, height = WORKER
    middle = x + (LANE - 24) / 2
    dead = lane == DEAD
    first, second = ("worker ended", "is being replaced") if dead else ("worker", "one event loop")
    return [
        box(x, top, LANE - 24, height, LOST if dead else LIVE, dashed=dead),
        text(middle, top + 22, first, bold=True),
        text(middle, top + 40, second, 12, FAINT),
    ]


def lane(index):
    left = LEFT + STEP * index
    inner = left + 12
    middle = left + LANE / 2
    shapes = [
        box(left, 80, LANE, 180, PAPER, dashed=True, ink=FAINT),
        text(middle, 101, f"lane {index} · CPU {index}", 13, bold=True),
        arrow(f"M{middle} 50 V78"),
        *queue(inner, [1, 2, 3, 1][index]),
        *worker(inner, index),
        arrow(f"M{middle} 298 V250", FAINT, dashed=True),
    ]
    if index != DEAD:
        shapes.append(arrow(f"M{middle} 156 V192"))
    return shapes


def picture():
    adopter = LEFT + STEP * (DEAD - 1) + LANE - 40
    orphan = LEFT + STEP * DEAD + 40
    lanes = [shape for index in range(LANES) for shape in lane(index)]
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" role="img">',
        "<title>Lanes: each has a CPU, sockets of its own and a worker; a supervisor replaces workers</title>",
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        box(LEFT, 14, WIDTH - 2 * LEFT, 36, SOCKET),
        text(WIDTH / 2, 37, "the kernel gives each new connection to one lane, by a hash: SO_REUSEPORT"),
        *lanes,
        # What becomes of the queue of a lane whose worker has ended.
        arrow(f"M{orphan} 156 C{orphan} 178 {adopter} 166 {adopter} 192"),
        text(LEFT + STEP * DEAD + LANE - 10, 181, "lane 1 serves these", 12, FAINT, "end"),
        box(LEFT, 298, WIDTH - 2 * LEFT, 40, RULER),
        text(WIDTH / 2, 323, "supervisor: owns every socket, starts, watches and replaces workers; sees no request"),
        "</svg>",
    ]


print("\n".join(picture()))
