"""The report as one page that needs nothing else: verdict, finalists, what was tried, queries before and after."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from typing import TYPE_CHECKING

from embedlab.tune.bench import describe

if TYPE_CHECKING:
    from embedlab.tune.proof import Finalist
    from embedlab.tune.study import TuningReport

_MOST_TRIALS = 400  # in the plot and the table


def page_of(report: TuningReport) -> str:
    """Write a report as HTML with its style, script and data inside.

    Args:
        report: The report.

    Returns:
        The page.
    """
    told = {
        "goal": report.goal,
        "untouched": {"score": report.untouched.development, "bytes": report.untouched.costs.bytes_per_document},
        "winner": None if report.winner is None else report.winner.system,
        "trials": [
            {
                "system": each.system,
                "name": name_of(each.system),
                "score": round(each.score, 4),
                "bytes": round(each.bytes_per_document, 1),
            }
            for each in report.trials[:_MOST_TRIALS]
        ],
    }
    template = files("embedlab.tune").joinpath("page.html").read_text(encoding="utf-8")
    parts = {
        "title": f"Tuning of {report.collection}",
        "verdict": verdict_of(report),
        "about": _about(report),
        "finalists": _finalists(report),
        "examples": _examples(report),
    }
    for name, text in parts.items():
        template = template.replace(
            "{{" + name + "}}", text if name in ("finalists", "examples") else html.escape(text)
        )
    # "</" must not end the script that holds the data
    return template.replace("{{data}}", json.dumps(told, ensure_ascii=False).replace("</", "<\\/"))


def verdict_of(report: TuningReport) -> str:
    """Say in one sentence what came out.

    Args:
        report: The report.

    Returns:
        The sentence.
    """
    winner = report.winner
    if winner is None:
        return "Nothing beats the collection as it is."
    gain = winner.gain
    how = "is better" if winner.better else "keeps to the limits, and is not worse by more than chance"
    return (
        f"{name_of(winner.system)} {how}: {report.goal} {report.untouched.test.estimate:.3f} → "
        f"{winner.test.estimate:.3f} on {report.queries[1]} queries that no choice has seen "
        f"(gain {gain.estimate:+.3f}, {gain.confidence:.0%} interval {gain.low:+.3f} to {gain.high:+.3f}, "
        f"p = {winner.pvalue:.2g})."
    )


def name_of(system: dict[str, object]) -> str:
    """Name a system for people.

    Args:
        system: Knob -> setting.

    Returns:
        Its settings; "as it is" for none.
    """
    return ", ".join(describe(system)) or "as it is"


def _about(report: TuningReport) -> str:
    asked = "made from the documents, for want of people's" if report.made else "asked by people"
    doubt = (
        " Such queries copy words of the documents more than people do; knobs that they misjudge were left alone."
        if report.made
        else ""
    )
    return (
        f"{report.queries[0]} queries chose and {report.queries[1]} tested, all {asked}.{doubt} {len(report.trials)} "
        f"systems were tried to the end in {report.seconds:.0f} seconds, seed {report.seed}. {len(report.finalists)} "
        f"went to the test; the chance of calling any of them better that is not is at most {report.level:.0%}."
    )


def _finalists(report: TuningReport) -> str:
    rows = [_row(each, report.goal, each is report.winner) for each in (report.untouched, *report.finalists)]
    heads = (
        "System",
        report.goal,
        "interval",
        "gain",
        "p",
        "won / lost / tied",
        "search ms (p95)",
        "encode ms",
        "bytes",
    )
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(finalist: Finalist, goal: str, wins: bool) -> str:
    test, costs = finalist.test, finalist.costs
    untouched = not finalist.system
    cells = (
        name_of(finalist.system),
        f"{test.estimate:.3f}",
        f"{test.low:.3f} to {test.high:.3f}",
        "" if untouched else f"{finalist.gain.estimate:+.3f}",
        "" if untouched else f"{finalist.pvalue:.2g}",
        "" if untouched else f"{finalist.won} / {finalist.lost} / {finalist.tied}",
        f"{costs.p50_ms:.1f} ({costs.p95_ms:.1f})",
        f"{costs.encode_ms:.2f}",
        f"{costs.bytes_per_document:,.0f}",
    )
    kind = ' class="wins"' if wins else ""
    return f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def _examples(report: TuningReport) -> str:
    if not report.finalists:
        return ""
    shown = report.winner or report.finalists[0]
    parts = [f"<p>{html.escape(name_of(shown.system))}, against the collection as it is.</p>"]
    for each in shown.examples:
        known = set(each.relevant)
        lists = "".join(
            f"<div><h4>{name}</h4><ol>"
            + "".join(f"<li{' class=hit' if doc in known else ''}>{html.escape(doc)}</li>" for doc in ranked)
            + "</ol></div>"
            for name, ranked in (("before", each.before), ("after", each.after))
        )
        mark = "gain" if each.gain > 0 else "loss"
        parts.append(
            f'<details class="{mark}"><summary>{html.escape(each.query)} <b>{each.gain:+.3f}</b></summary>'
            f'<div class="lists">{lists}</div></details>'
        )
    return "".join(parts)
