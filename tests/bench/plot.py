"""A line chart as plain SVG text: a few series over a logarithmic axis, labelled at their ends."""

from collections.abc import Mapping, Sequence
from math import log10

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 70, 150, 50, 60
COLOURS = ("#8a8f98", "#2f7ed8", "#d9480f")


def chart(title: str, x_label: str, y_label: str, xs: Sequence[float], series: Mapping[str, Sequence[float]]) -> str:
    """Both axes logarithmic."""
    ys = [y for line in series.values() for y in line]
    left, right, low, high = log10(xs[0]), log10(xs[-1]), log10(min(ys) / 1.3), log10(max(ys) * 1.3)

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (log10(x) - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (log10(y) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="28" font-size="16">{title}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 16}" text-anchor="middle">{x_label}</text>',
        f'<text transform="translate(20 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{y_label}</text>',
    ]
    for x in xs:
        across, _ = at(x, 1.0)
        parts += [
            f'<path d="M{across:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>',
            f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>',
        ]
    for y in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if low <= log10(y) <= high:
            _, down = at(xs[0], y)
            parts += [
                f'<path d="M{LEFT} {down:.1f}H{WIDTH - RIGHT}" stroke="#eee"/>',
                f'<text x="{LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{y}</text>',
            ]
    ends: list[tuple[float, str, str]] = []
    for colour, (label, line) in zip(COLOURS, series.items(), strict=False):
        points = [at(x, y) for x, y in zip(xs, line, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts += [
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
            *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points),
        ]
        ends.append((points[-1][1], colour, label))
    free = 0.0
    for down, colour, label in sorted(ends):
        free = max(down + 4, free + 16)  # two lines may end close together
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{free:.1f}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])
