"""Training texts without people: synth, judge."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from embedlab.data.corpus import CorpusPassage
    from embedlab.text.synthesis import SyntheticPair, Usage

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class Prompt(StrEnum):
    """What a language model writes for each passage."""

    query = "query"
    negative = "negative"
    paraphrase = "paraphrase"
    entailment = "entailment"
    summary = "summary"
    document = "document"
    triplet = "triplet"
    instruction = "instruction"
    task = "task"


def synth(
    source: Annotated[Path, typer.Argument(metavar="DOCS", help="Documents: a file or a folder.")],
    out: Annotated[Path, typer.Option("--out", help="File for the training rows, JSON lines.")],
    llm: Annotated[
        str | None, typer.Option(help="Language model: URL#MODEL, or the folder of one. Without: no model, no network.")
    ] = None,
    prompt: Annotated[Prompt, typer.Option(help="With --llm: what is written for each passage.")] = Prompt.query,
    cast: Annotated[str, typer.Option(help="With --llm: who asks, 'general' or 'finance'.")] = "general",
    per_passage: Annotated[int, typer.Option(min=1, help="Most rows of each passage.")] = 1,
    top_k: Annotated[
        int, typer.Option(min=0, help="Keep a query if its passage is among so many nearest; 0 keeps all.")
    ] = 1,
    avoid: Annotated[
        list[Path] | None, typer.Option(help="File of texts that will be evaluated on, one per line; repeatable.")
    ] = None,
    max_copied: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="With --llm: most of a query's words that its passage may hold.")
    ] = 1.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first so many passages only.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Prompts under way at the same time.")] = 4,
    model: Annotated[str, typer.Option(help="Model that searches for the round trip.")] = "default",
    seed: Annotated[int, typer.Option(help="Decides who asks what, and what is drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write training rows for DOCS: queries with the passages that answer them.

    Without a language model, queries are headings, first sentences (taken out of the passage) and salient phrases. With
    one, answers are kept in OUT.answers.jsonl and finished rows in OUT.journal.jsonl, with what was refused and why: an
    interrupted run goes on, and nothing is paid for twice. A query is kept if searching for it brings its passage back.
    """
    import json
    from itertools import islice

    from embedlab._core.errors import InputError
    from embedlab._core.files import atomic_write
    from embedlab.cli.console import err, print_json
    from embedlab.cli.console import out as console
    from embedlab.data.corpus import read_corpus
    from embedlab.models import load_model
    from embedlab.text.synthesis import consistency_filter, copied_share, offline_queries

    passages = list(islice(read_corpus(source), limit))
    if not passages:
        raise InputError(f"{source}: no document that can be read; `embedlab index` says why")
    refused: dict[str, int] = {}
    negatives: list[str] = []
    used: Usage | None = None
    if llm is None:
        pairs = offline_queries(passages, per_passage=per_passage, seed=seed)
    else:
        watched = [line.strip() for file in avoid or () for line in _lines(file) if line.strip()]
        pairs, negatives, refused, used = _asked(
            passages, llm, out, prompt.value, cast, per_passage, watched, max_copied, workers, seed
        )
    written, kept = len(pairs), pairs
    round_trip = top_k and prompt in (Prompt.query, Prompt.negative)
    if round_trip:
        kept, report = consistency_filter(pairs, passages, load_model(model), top_k=top_k)
        negatives = [text for text, good in zip(negatives, report.kept, strict=False) if good]
        refused = {**refused, "round trip": written - len(kept)}
    rows = []
    for place, pair in enumerate(kept):
        row = {"query": pair.query, "positive": pair.passage}
        row |= {"negative": negatives[place]} if place < len(negatives) and negatives[place] else {}
        rows.append(row | {"kind": pair.kind, "group": passages[pair.source].document})
    atomic_write(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    tokens = None if used is None else {"prompt": used.prompt_tokens, "completion": used.completion_tokens}
    copied = sum(copied_share(pair.query, pair.passage) for pair in kept) / max(len(kept), 1)
    if as_json:
        told = {"passages": len(passages), "written": written, "rows": len(rows), "refused": refused, "tokens": tokens}
        print_json(told | {"copied": copied})
        return
    console.print(f"{len(rows):,} rows of {len(passages):,} passages in {out}", markup=False)
    for reason, count in sorted(refused.items()):
        if count:
            console.print(f"  refused, {reason}: {count:,}")
    console.print(f"  words of a query that its passage holds too: {copied:.0%}")
    if tokens is not None:
        console.print(f"tokens: {tokens['prompt']:,} sent, {tokens['completion']:,} received")
    if llm is not None and not avoid:
        err.print("nothing was compared with evaluation texts: give them as --avoid", markup=False)


def judge(
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help="JSON lines of query, positive and maybe negatives.")],
    out: Annotated[Path, typer.Option("--out", help="File for the rows that are kept, JSON lines.")],
    llm: Annotated[str | None, typer.Option(help="Language model: URL#MODEL, or the folder of one.")] = None,
    cross_encoder: Annotated[str | None, typer.Option(help="A cross-encoder instead: folder or hub name.")] = None,
    least: Annotated[float | None, typer.Option(help="Drop rows whose positive scores below this.")] = None,
    margin: Annotated[float, typer.Option(min=0.0, help="Drop negatives that score less than this below.")] = 0.0,
    relabel: Annotated[
        int, typer.Option(min=0, help="Choose positive and negative anew among so many nearest passages; 0 does not.")
    ] = 0,
    model: Annotated[str, typer.Option(help="Model that finds the candidates for --relabel.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Let a judge go over ROWS: drop false positives and false negatives, or choose better ones.

    A language model grades from 0 to 3; a cross-encoder in its own unit. Answers are kept in OUT.answers.jsonl, so that
    nothing is asked twice.
    """
    import json

    from embedlab._core.errors import InputError
    from embedlab._core.extras import require
    from embedlab._core.files import atomic_write
    from embedlab.cli.console import out as console
    from embedlab.cli.console import print_json
    from embedlab.models import load_model
    from embedlab.text.synthesis import (
        LLMJudge,
        ReplayGenerator,
        as_generator,
        drop_false_labels,
        read_triplets,
        relabel_with_ranker,
    )

    if (llm is None) == (cross_encoder is None):
        raise InputError("a judge is needed: give either --llm or --cross-encoder")
    given = read_triplets(rows)
    referee: Any
    if llm is not None:
        referee = LLMJudge(ReplayGenerator(_beside(out, "answers"), as_generator(llm)))
    else:
        referee = require("sentence_transformers", extra="train").CrossEncoder(cross_encoder)
    changed = 0
    if relabel:
        pool = list(dict.fromkeys(each.positive for each in given))
        found = relabel_with_ranker(given, pool, load_model(model), referee, top_k=relabel)
        changed = sum(each.changed for each in found)
        given = [each.triplet for each in found]
    kept, report = drop_false_labels(given, referee, least=float("-inf") if least is None else least, margin=margin)
    lines = [
        {"query": each.query, "positive": each.positive}
        | {f"negative_{place + 1}": text for place, text in enumerate(each.negatives)}
        for each in kept
    ]
    atomic_write(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    told = {
        "rows": len(given),
        "kept": len(kept),
        "relabelled": changed,
        "false_positives": report.false_positives,
        "false_negatives": report.false_negatives,
        "without_negatives": report.emptied,
        "mean_score": float(report.scores.mean()) if len(report.scores) else None,
    }
    if as_json:
        print_json(told)
        return
    console.print(f"{len(kept):,} of {len(given):,} rows kept in {out}", markup=False)
    for name in ("relabelled", "false_positives", "false_negatives", "without_negatives"):
        console.print(f"  {name.replace('_', ' ')}: {told[name]:,}")
    if told["mean_score"] is not None:
        console.print(f"  mean score of positives: {told['mean_score']:.2f}")


def _asked(
    passages: list[CorpusPassage],
    llm: str,
    out: Path,
    prompt: str,
    cast: str,
    per_passage: int,
    watched: list[str],
    max_copied: float,
    workers: int,
    seed: int,
) -> tuple[list[SyntheticPair], list[str], dict[str, int], Usage]:
    """Let a language model write; return pairs, their negatives, refusals and what was used."""
    from embedlab._core.errors import unknown_name
    from embedlab.models import load_model
    from embedlab.text.synthesis import CASTS, QualityFilter, ReplayGenerator, as_generator, pairs_of, synthesize_pairs

    if cast not in CASTS:
        raise unknown_name("cast", cast, CASTS)
    filters = QualityFilter(
        watched,
        encoder=load_model() if watched else None,
        query_chars=(3, 20_000),
        passage_chars=(3, 20_000),
        max_copied=max_copied,
    )
    generator = ReplayGenerator(_beside(out, "answers"), as_generator(llm, workers=workers))
    report = synthesize_pairs(
        passages,
        generator,
        _beside(out, "journal"),
        prompt=prompt,
        cast=CASTS[cast],
        per_passage=per_passage,
        filters=filters,
        seed=seed,
    )
    return pairs_of(report.rows), [row.negative for row in report.rows], report.refused, report.usage


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}.{what}.jsonl")


def _lines(path: Path) -> list[str]:
    from embedlab.cli.text_files import read_utf8

    return read_utf8(path).split("\n")
