"""Who asks, and what for: personas and kinds of tasks, for finance and for texts of any sort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Persona:
    """Somebody who looks for information.

    Attributes:
        name: A few words, which label every row.
        description: One sentence for a language model: what this person does and cares about.
        register: How the person asks when no language model speaks for them: in full questions (``"plain"``), in
            search words (``"keywords"``) or explaining the need (``"detailed"``).
    """

    name: str
    description: str
    register: str = "plain"


@dataclass(frozen=True, slots=True)
class TaskKind:
    """What a person wants to do with what they find.

    Attributes:
        name: A few words, which label every row.
        description: One clause for a language model: ``"wants to ..."``.
        questions: Questions for when no language model is at hand; each holds ``{topic}``, some ``{other}`` too.
    """

    name: str
    description: str
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """Personas and tasks that belong together.

    Attributes:
        personas: Who asks.
        tasks: What for.
    """

    personas: tuple[Persona, ...]
    tasks: tuple[TaskKind, ...]


_FINANCE_PERSONAS = (
    Persona("equity analyst", "follows a dozen listed companies and writes notes on what drives their profits"),
    Persona("credit analyst", "judges whether a borrower can pay interest and repay its debt", "detailed"),
    Persona("portfolio manager", "runs a fund and decides which holdings to enlarge or to sell", "keywords"),
    Persona("day trader", "reacts within minutes to news about earnings and guidance", "keywords"),
    Persona("retail investor", "saves from a salary, owns a few shares and wants plain words"),
    Persona("financial adviser", "explains investments to families and answers for the suitability of advice"),
    Persona("management accountant", "prepares monthly figures and explains why costs left the budget", "detailed"),
    Persona("external auditor", "checks that estimates and disclosures follow the accounting standards", "detailed"),
    Persona("tax specialist", "looks after deferred taxes, credits and open years with the authorities", "detailed"),
    Persona("treasurer", "secures cash, credit lines and hedges against currencies and interest rates", "keywords"),
    Persona("risk officer", "keeps a list of what could hurt the firm and how much it would cost"),
    Persona("compliance officer", "watches that rules on disclosure, trading and customers are kept", "detailed"),
    Persona("pension trustee", "answers for the promises of a pension plan over decades"),
    Persona("merger lawyer", "reads contracts and filings before a company changes hands", "detailed"),
    Persona("supply chain manager", "cares about contracts with suppliers, stock and capacity"),
    Persona("sustainability officer", "reports on emissions, energy and working conditions"),
    Persona("business journalist", "turns a filing into five paragraphs that anybody understands"),
    Persona("economics student", "meets the terms of annual reports for the first time"),
    Persona("board member", "has one evening to prepare questions to the management"),
    Persona("insurance underwriter", "prices the chance that a business is interrupted or sued", "keywords"),
)

_FINANCE_TASKS = (
    TaskKind(
        "performance review",
        "wants to know how results have moved against the year before and why",
        ("how did {topic} change compared with the year before?", "what drove {topic} and {other} this year?"),
    ),
    TaskKind(
        "risk assessment",
        "wants to find what could go wrong and how large the damage would be",
        ("what risks come with {topic}?", "how exposed is the company to {topic}, given {other}?"),
    ),
    TaskKind(
        "valuation",
        "looks for the inputs of a valuation: growth, margins, discount rates, fair values",
        ("which assumptions stand behind {topic}?", "how is {topic} measured at fair value?"),
    ),
    TaskKind(
        "accounting policy",
        "wants to understand how something is recognised, measured or presented",
        ("how does the company account for {topic}?", "when is {topic} recognised, and what about {other}?"),
    ),
    TaskKind(
        "cash and financing",
        "follows where cash comes from, where it goes and which debts fall due",
        ("what does {topic} mean for cash and debt?", "how is {topic} financed?"),
    ),
    TaskKind(
        "tax",
        "looks for tax rates, credits, losses carried forward and disputes",
        ("what is the tax effect of {topic}?", "which taxes depend on {topic} and {other}?"),
    ),
    TaskKind(
        "pay and pensions",
        "wants to know about share-based pay, pensions and other promises to people",
        ("what do employees receive under {topic}?", "how are {topic} and {other} granted or funded?"),
    ),
    TaskKind(
        "regulation",
        "asks which rules or standards apply and what they change",
        ("which rules apply to {topic}?", "what changed for {topic} under the new standard?"),
    ),
    TaskKind(
        "business and markets",
        "wants to understand products, customers, segments and competition",
        ("who are the customers for {topic}?", "which segment reports {topic}, and what is {other}?"),
    ),
    TaskKind(
        "planning",
        "prepares a forecast or a decision and needs commitments and expectations",
        ("what does the company expect of {topic}?", "which commitments follow from {topic}?"),
    ),
    TaskKind(
        "fact finding",
        "needs one figure, date, name or definition",
        ("what is {topic}?", "what does the report say about {topic} and {other}?"),
    ),
)

_GENERAL_PERSONAS = (
    Persona("newcomer", "meets the subject for the first time and does not know its terms"),
    Persona("specialist", "knows the field well and looks for one detail", "detailed"),
    Persona("student", "prepares for an examination and wants things explained"),
    Persona("busy colleague", "types two or three words and expects the right page", "keywords"),
    Persona("reviewer", "checks whether what is stated is supported", "detailed"),
    Persona("teacher", "looks for an example that makes an idea clear"),
    Persona("journalist", "needs the point in plain words, and who says so"),
    Persona("practitioner", "has a problem at hand and wants to know what to do", "keywords"),
)

_GENERAL_TASKS = (
    TaskKind(
        "fact finding",
        "needs one fact, figure, date or name",
        ("what is {topic}?", "what is known about {topic} and {other}?"),
    ),
    TaskKind(
        "explanation", "wants to understand how or why", ("how does {topic} work?", "why does {topic} affect {other}?")
    ),
    TaskKind(
        "comparison",
        "weighs two things against each other",
        ("how does {topic} compare with {other}?", "what distinguishes {topic}?"),
    ),
    TaskKind(
        "procedure",
        "wants to do something step by step",
        ("how is {topic} done?", "what is needed for {topic}, and for {other}?"),
    ),
    TaskKind(
        "evidence",
        "looks for what supports or contradicts a statement",
        ("what is the evidence on {topic}?", "does {topic} depend on {other}?"),
    ),
    TaskKind(
        "overview", "wants to know what there is", ("what should I read about {topic}?", "overview of {topic}, {other}")
    ),
)

CASTS: Mapping[str, Cast] = MappingProxyType(
    {
        "finance": Cast(_FINANCE_PERSONAS, _FINANCE_TASKS),
        "general": Cast(_GENERAL_PERSONAS, _GENERAL_TASKS),
    }
)
