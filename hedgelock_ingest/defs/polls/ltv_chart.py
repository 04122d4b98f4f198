"""A chart of the LTV against its thresholds, small enough to be stored with every materialisation."""

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hedgelock_ingest.protocol.loans import THRESHOLDS

if TYPE_CHECKING:  # only a run that draws loads matplotlib: the code server must start fast
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

type Point = tuple[datetime, Decimal]

_COLOUR_BY_THRESHOLD = {"margin call": "#b8860b", "liquidation": "#c0262d"}
_LINE, _INK, _GRID = "#4f43dd", "#333333", "#dddddd"
_INCHES, _DOTS_PER_INCH = (6.6, 2.7), 100
_COLOURS = 32
_MIN_SPAN = timedelta(seconds=20)
_MAX_MARKED_POINTS = 30
_BELOW_PERCENT, _ABOVE_PERCENT = 8.0, 2.0


def ltv_chart(points: Sequence[Point]) -> str:
    """Draw the LTV over time as a picture in Markdown; `points` are in order, at least one."""
    caption = f"LTV {points[-1][1]:.2%} at {points[-1][0]:%H:%M:%S} UTC, since {points[0][0]:%H:%M:%S}"
    return f"![{caption}](data:image/png;base64,{base64.b64encode(ltv_picture(points)).decode()})"


def ltv_picture(points: Sequence[Point]) -> bytes:
    """Draw the LTV over time as a PNG of few colours, a quarter of the full size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    _draw(figure, points)
    canvas.draw()
    drawn = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    png = io.BytesIO()
    drawn.quantize(_COLOURS).save(png, "PNG", optimize=True)
    return png.getvalue()


def _draw(figure: "Figure", points: Sequence[Point]) -> None:
    from matplotlib.dates import date2num

    axes = figure.add_subplot()
    days = [float(date2num(at)) for at, _ in points]
    percents = [float(ltv) * 100 for _, ltv in points]
    marker = "o" if len(points) <= _MAX_MARKED_POINTS else ""
    axes.plot(days, percents, color=_LINE, linewidth=1.6, marker=marker, markersize=3)
    _draw_thresholds(axes)
    beside_the_end: dict[str, Any] = {"xytext": (-2, 6), "textcoords": "offset points", "ha": "right"}
    axes.annotate(
        f"{percents[-1]:.2f} %", (days[-1], percents[-1]), **beside_the_end, color=_LINE, fontsize=9, fontweight="bold"
    )
    axes.set_ylim(max(min(percents) - _BELOW_PERCENT, 0), max(*percents, 100) + _ABOVE_PERCENT)
    _scale(axes, days[0], days[-1])


def _draw_thresholds(axes: "Axes") -> None:
    for name, threshold in THRESHOLDS.items():
        percent, colour = float(threshold) * 100, _COLOUR_BY_THRESHOLD[name]
        axes.axhline(percent, color=colour, linewidth=1.3, linestyle="--")
        at_the_left: dict[str, Any] = {"xytext": (0, 2), "textcoords": "offset points"}
        at_the_left["xycoords"] = axes.get_yaxis_transform()
        axes.annotate(f"{name} {percent:g} %", (0.01, percent), **at_the_left, color=colour, fontsize=8)


def _scale(axes: "Axes", first_day: float, last_day: float) -> None:
    from matplotlib.dates import AutoDateLocator, DateFormatter

    span = last_day - first_day
    margin = max(span * 0.02, (_MIN_SPAN / timedelta(days=1) - span) / 2)
    axes.set_xlim(first_day - margin, last_day + margin)
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=8, tz=UTC))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S", tz=UTC))
    axes.set_xlabel("time (UTC)", color=_INK)
    axes.set_ylabel("LTV (%)", color=_INK)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
