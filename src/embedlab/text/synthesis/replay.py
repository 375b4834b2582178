"""Answers of a language model on record: nothing is asked or paid for twice, and a run can be repeated offline.

generator = ReplayGenerator("answers.jsonl", EndpointGenerator("https://host/v1#model"))  # asks, and remembers
generator = ReplayGenerator("answers.jsonl")                                             # only remembers
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedlab._core.errors import InputError
from embedlab.text.synthesis.generators import TextGenerator, Usage, usage_of


class ReplayGenerator:
    """Answer from a record, and put on record what another generator answers: nothing is paid for twice.

    The record is a file of JSON lines, one for each (model, prompt, ``max_tokens``, ``seed``), on the disk before it is
    used. A half-written line at the end, left by a crash, is asked again.

    Args:
        path: The file; made if missing and there is a generator.
        generator: Asked for what is not on record. None: only what is on record is answered.

    Attributes:
        name: The name of the model whose answers these are.

    Raises:
        InputError: there is neither file nor generator, or the file is no such record.
    """

    def __init__(self, path: str | os.PathLike[str], generator: TextGenerator | None = None) -> None:
        self._path, self._generator, self._lock = Path(path), generator, threading.Lock()
        if generator is None and not self._path.is_file():
            raise InputError(f"{self._path} is not there: a record is made by ReplayGenerator(path, generator)")
        rows = _recorded(self._path)
        self.name = generator.name if generator is not None else next((row["model"] for row in rows), "replay")
        self._answers: dict[str, Any] = {row["key"]: row["answer"] for row in rows}

    @property
    def usage(self) -> Usage:
        """What the generator behind it has used: answers on record cost nothing."""
        return usage_of(self._generator)

    def generate(self, prompts: Sequence[str], *, max_tokens: int = 256, seed: int = 0) -> list[str]:
        """Answer from the record, and ask for the rest."""
        keys = [_key(self.name, "generate", prompt, max_tokens, seed) for prompt in prompts]
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._answers}
        if missing:
            asked = self._behind(next(iter(missing.values())))
            answers = asked.generate(list(missing.values()), max_tokens=max_tokens, seed=seed)
            self._keep(dict(zip(missing, answers, strict=True)), missing)
        return [self._answers[key] for key in keys]

    def score(self, prompt: str, options: Sequence[str]) -> list[float]:
        """Answer from the record, or ask."""
        key = _key(self.name, "score", prompt, *options)
        if key not in self._answers:
            self._keep({key: self._behind(prompt).score(prompt, options)}, {key: prompt})
        return list(self._answers[key])

    def _behind(self, prompt: str) -> TextGenerator:
        if self._generator is None:
            raise InputError(
                f"{self._path} holds no answer to the prompt {prompt[:80]!r}: with another model, prompt, seed or "
                "max_tokens it must be asked; give a generator"
            )
        return self._generator

    def _keep(self, answers: Mapping[str, Any], prompts: Mapping[str, str]) -> None:
        lines = [
            json.dumps({"key": key, "model": self.name, "prompt": prompts[key], "answer": answer}, ensure_ascii=False)
            for key, answer in answers.items()
        ]
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                if file.tell() and not self._path.read_bytes().endswith(b"\n"):
                    file.write(b"\n")  # closes a line that a crash cut
                file.write("".join(line + "\n" for line in lines).encode())
                file.flush()
                os.fsync(file.fileno())
            self._answers |= answers


def _recorded(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line else None
        except json.JSONDecodeError as error:
            if line.startswith('{"key"'):  # cut by a crash: it is asked again
                continue
            raise InputError(f"{path}, line {number}: not a record of answers: {line[:80]!r}") from error
        if row is None:
            continue
        if not isinstance(row, dict) or not {"key", "model", "prompt", "answer"} <= set(row):
            raise InputError(f"{path}, line {number}: not a record of answers: {line[:80]!r}")
        rows.append(row)
    return rows


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:24]
