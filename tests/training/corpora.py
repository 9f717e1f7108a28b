"""Small corpora: dialogues of our own in every format, and encoders over toy tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

from annotation.formats.dialogues import Turn
from annotation.formats.problems import Place
from models_runtime.engine.chatglm.tokenization import ChatGLMTokenizer
from models_runtime.engine.prompts import TEMPLATES, Template
from tests.models_runtime.tiny import REFERENCE
from training.corpus.encoding import Encoder
from training.corpus.formats import Dialogue

TALK = (
    "最近总是睡不好，白天也没有精神。",
    "听起来你已经累了一段时间，愿意说说从什么时候开始的吗？",
    "大概是换了新部门以后。",
    "新的环境要花很多力气去适应，睡不好并不奇怪。",
    "嗯，我怕自己做不好。",
    "这份担心里，也有你对工作的认真。",
)


def dialogue(*texts: str, key: str = "1", first: str = "client", topic: str = "", first_target: int = 0) -> Dialogue:
    """A dialogue of these texts, sides taking turns."""
    sides = ("client", "counsellor") if first == "client" else ("counsellor", "client")
    turns = tuple(Turn(sides[number % 2], text) for number, text in enumerate(texts or TALK))
    return Dialogue(key, key, topic, turns, first_target, Place("made up"))


def chatglm_encoder(template: Template = TEMPLATES["soulchat"]) -> Encoder:
    file = REFERENCE / "chatglm" / "ice_text.model"
    return Encoder(ChatGLMTokenizer(file), "chatglm", template, {file.name: "0"})


def messages(*texts: str, roles: tuple[str, str] = ("user", "assistant")) -> list[dict[str, str]]:
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts or TALK)]


def smilechat(folder: Path, dialogues: dict[str, list[dict[str, str]] | str]) -> Path:
    """A release folder: one file for each dialogue; text is written as it is."""
    folder.mkdir()
    for name, turns in dialogues.items():
        text = turns if isinstance(turns, str) else json.dumps(turns, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def soulchat(path: Path, entries: list[object]) -> Path:
    path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return path


def jsonl(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
