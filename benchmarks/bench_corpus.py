"""How fast a corpus is prepared for training, and in how much memory.

    python -m benchmarks.bench_corpus                        made-up dialogues with lengths like SMILECHAT's
    python -m benchmarks.bench_corpus --file smilechat.zip   dialogues of a release, over again until there are enough
    python -m benchmarks.bench_corpus --weights chatglm-6b   with a real tokenizer

Runs `manage.py prepare_corpus` as a process of its own, as a person would, for 1,000 samples (mostly start-up), for a
fifth, and for all of 300,000; then once more with cleaning, which takes the repeated dialogues for what they are and
drops them. Without --weights a sentencepiece model of 20,000 pieces is trained on the texts first, in the layout of
ChatGLM-6B's, so that there are about as many tokens as with the real one.
Beside it, on 2,000 samples and in one process: contexts tokenised one by one, as a plain script would.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from annotation.formats.source import Source
from benchmarks.bench_import import made_up, manage
from training.corpus.encoding import Encoder
from training.corpus.formats import Dialogue, Reading, read_dialogues

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "tests" / "models_runtime" / "reference" / "chatglm" / "config.json"
N_PIECES = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="a release: SMILECHAT folder, .zip, .tar.xz, or SoulChatCorpus array")
    parser.add_argument("--weights", type=Path, help="a model folder, for its tokenizer")
    parser.add_argument("--samples", type=int, default=300_000)
    parser.add_argument("--dialogues", type=int, default=3_000, help="that are made up where there is no --file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = options.file or made_up(folder / "made-up.tar.xz", options.dialogues)
        what = f"dialogues of {path.name}" if options.file else "made-up dialogues"
        found = list(read_dialogues(Source(path, path.name), Reading()))
        weights = options.weights or train_tokenizer(folder / "model", found)
        env = os.environ | {"QINGTING_DATA_DIR": name, "DJANGO_SETTINGS_MODULE": "config.settings.dev"}
        print(f"{len(found)} {what}, over again with a number in their first turn.\n")
        print("| samples | seconds | samples/s | processor seconds | peak memory, MiB | tokens | stored, MB |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        sizes = [min(1000, options.samples), options.samples // 5, options.samples]
        for number, (n, clean) in enumerate([*((size, ()) for size in sizes), (options.samples, ("--clean",))]):
            rows = write_rows(folder / "rows.jsonl", found, n)
            out = folder / f"out-{number}"
            arguments = (str(out), str(rows), "--weights", str(weights), "--test-share", "0", *clean)
            seconds, cpu, peak, _ = manage(env, "prepare_corpus", *arguments)
            card = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
            train = card["train"]
            tokens = train["n_context_tokens"] + train["n_target_tokens"]
            stored = sum(file.stat().st_size for file in (out / "train").iterdir()) / 1e6
            made = card["counts"]["n_samples"]
            name, rate = (f"{n}, cleaned: {made} kept", n / seconds) if clean else (f"{made}", made / seconds)
            print(
                f"| {name} | {seconds:.1f} | {rate:.0f} | {cpu:.1f} | {peak:.0f} | {tokens} | {stored:.0f} |",
                flush=True,
            )
        fast, slow, n = tokenised(Encoder.load(weights), found)
        print(f"\nContexts of {n} samples: {n / fast:.0f} samples/s cut from one text, {n / slow:.0f} one by one.")


def write_rows(path: Path, found: list[Dialogue], n_samples: int) -> Path:
    """Rows of ours with at least so many samples; no two dialogues are the same."""
    with path.open("w", encoding="utf-8") as file:
        for dialogue in numbered(found):
            if n_samples <= 0:
                break
            n_samples -= len(dialogue.targets)
            file.write(json.dumps(dialogue.to_row(), ensure_ascii=False) + "\n")
    return path


def numbered(found: list[Dialogue]) -> Iterator[Dialogue]:
    usable = [dialogue for dialogue in found if dialogue.targets]
    for number in count():
        dialogue = usable[number % len(usable)]
        first = dialogue.turns[0]
        turns = (first._replace(text=f"{first.text}（{number}）"), *dialogue.turns[1:])
        yield dialogue._replace(key=str(number), group=str(number), turns=turns)


def tokenised(encoder: Encoder, found: list[Dialogue], n_samples: int = 2000) -> tuple[float, float, int]:
    """Seconds for the contexts of some samples both ways, and how many there were. The ids are the same."""
    seconds, n = [0.0, 0.0], 0
    for dialogue in found:
        if n >= n_samples:
            break
        ends = dialogue.targets
        started = time.perf_counter()
        fast = encoder.contexts(dialogue.turns, ends)
        between = time.perf_counter()
        slow = [encoder.context(dialogue.turns[:end]) for end in ends]
        seconds[0] += between - started
        seconds[1] += time.perf_counter() - between
        if fast != slow:
            raise SystemExit(f"dialogue {dialogue.key}: the two ways differ")
        n += len(ends)
    return seconds[0], seconds[1], n


def train_tokenizer(folder: Path, found: list[Dialogue]) -> Path:
    """A folder with config.json and a sentencepiece model of these texts, with the marks of ChatGLM-6B's."""
    import sentencepiece  # here, because a bench with --weights does without

    folder.mkdir()
    marks = ["[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(turn.text for dialogue in found[:2000] for turn in dialogue.turns),
        model_prefix=str(folder / "ice_text"),
        vocab_size=N_PIECES,
        hard_vocab_limit=False,
        model_type="unigram",
        byte_fallback=True,
        normalization_rule_name="nfkc",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        control_symbols=marks,
        user_defined_symbols=["<n>", "<|tab|>", *(f"<|blank_{n}|>" for n in range(2, 81))],
        num_threads=1,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "ice_text.model"))
    ids = {"bos_token_id": "<sop>", "eos_token_id": "<eop>", "mask_token_id": "[MASK]", "gmask_token_id": "[gMASK]"}
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    config |= {name: pieces.piece_to_id(piece) for name, piece in ids.items()} | {"pad_token_id": 3}
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": pieces.get_piece_size()}), encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
