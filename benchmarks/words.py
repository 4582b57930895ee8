"""Search by words: nDCG@10 of a published list of queries, beside tags that are equal to the words, and random order.

    python benchmarks/words.py --media FOLDER [FOLDER ...] --store FOLDER    # sound files, and the sound of videos
    python benchmarks/words.py --media FOLDER --store FOLDER --each          # and every query

`words_queries.yml` says which tags are right and wrong for each query. A tag holds for a track if the network that
says the truth gives it a probability of at least 0.1, and one of the highest fifth in this library. Queries for which
all tracks have the same gain are left out, and counted.

Rows are what ranks, columns are who says the truth:

- `words`: this search, over the tags of both networks and the descriptors;
- `words, one network`: the same without `musicnn_tags`;
- `equal tags, all`: mean log-odds of the tags whose names are in the text, of both networks;
- `equal tags, three`: how many of the three likeliest tags of a track, all that the index kept before, are in the text;
- `random`: the expectation over random orders.

Where the network that says the truth also ranks, the figure is about the words alone: how well they are turned into
tags. `one network` with the truth of MTT_musicnn is also about the sound: no number that ranks is one that judges.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from vmnet_pipeline.backends.musicnn_tags import TAGS
from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.words.collecting import choose_describer
from vmnet_pipeline.words.concepts import SIGN
from vmnet_pipeline.words.qualities import Qualities
from vmnet_pipeline.words.sentences import SentenceEncoder
from vmnet_pipeline.words.understanding import Listener

QUERIES = Path(__file__).with_name("words_queries.yml")
BACKENDS = ("musicnn", "musicnn_tags", "descriptors_audio")
SUFFIXES = {".mp3", ".ogg", ".opus", ".m4a", ".flac", ".wav", ".mp4", ".mkv", ".webm"}
MSD, MTT = "MSD_musicnn", "MTT_musicnn"
MIN_PROBABILITY, TOP_SHARE, K = 0.1, 0.2, 10

Rank = Callable[[str], np.ndarray]


def describe_tracks(files: Sequence[Path], store: Path, weights_dir: Path) -> pd.DataFrame:
    """What words can ask for of each track; computed once and kept in `store`."""
    parts = []
    for name in BACKENDS:
        backend = get_backend(name, weights_dir=weights_dir)
        describer = choose_describer(backend.fingerprint(), weights_dir)
        rows = [_describe(backend, describer, path, store / name) for path in files]
        parts.append(pd.DataFrame(rows, index=[path.stem for path in files], columns=list(describer.columns)))
    return pd.concat(parts, axis=1).dropna(how="all")


def _describe(backend: Any, describer: Any, path: Path, store: Path) -> np.ndarray:
    place = store / f"{path.stem}.npy"
    if not place.is_file():
        backend.load()
        try:
            feature = backend.finish(backend.infer(backend.prepare(str(path)).inputs))
        except MediaError as error:
            print(f"left out: {error}")
            return np.full(len(describer.columns), np.nan)
        store.mkdir(parents=True, exist_ok=True)
        np.save(place, feature)
    return describer.describe(np.load(place))


def find_truth(table: pd.DataFrame, networks: Sequence[str]) -> dict[str, np.ndarray]:
    """Tag, in lower case, to the tracks it holds for: (n,) bool."""
    truth: dict[str, np.ndarray] = {}
    for network in networks:
        for tag in TAGS[network]:
            odds = table[f"{network}{SIGN}{tag}"].to_numpy()
            holds = (1 / (1 + np.exp(-odds)) >= MIN_PROBABILITY) & (odds >= np.quantile(odds, 1 - TOP_SHARE))
            truth[tag.lower()] = truth.get(tag.lower(), False) | holds
    return truth


def find_gain(query: Mapping[str, Any], truth: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """(n,) gain of each track; None if all have the same, or no tag of the query is in use."""
    right, wrong = (
        [truth[tag.lower()] for tag in query.get(key, ()) if tag.lower() in truth] for key in ("right", "wrong")
    )
    if (query["right"] and not right) or (query.get("wrong") and not wrong):
        return None
    gain = np.mean(right, axis=0) if right else np.ones(len(next(iter(truth.values()))))
    if wrong:
        gain = np.where(np.any(wrong, axis=0), 0.0, gain)
    return gain if np.ptp(gain) > 0 else None


def rank_by_words(table: pd.DataFrame, encoder: SentenceEncoder) -> Rank:
    library = Qualities.measure([*table.index], [*table.columns], table.to_numpy(np.float64))
    listener = Listener(library.columns, encoder)

    def rank(text: str) -> np.ndarray:
        try:
            return library.score(listener.understand(text))
        except ParameterError:  # not understood: any order
            return np.zeros(len(table))

    return rank


def rank_by_equal_tags(table: pd.DataFrame, n_kept: int | None) -> Rank:
    """Scores by the tags that are in the text as whole words, of all or of the `n_kept` likeliest of each track."""
    networks = [network for network in (MSD, MTT) if f"{network}{SIGN}{TAGS[network][0]}" in table]
    columns = [f"{network}{SIGN}{tag}" for network in networks for tag in TAGS[network]]
    values = table[columns].to_numpy()
    if n_kept is not None:
        blocks = np.split(values, len(networks), axis=1)
        values = np.concatenate([b >= np.sort(b, axis=1)[:, [-n_kept]] for b in blocks], axis=1).astype(float)

    def rank(text: str) -> np.ndarray:
        named = [
            bool(re.search(rf"(?<!\w){re.escape(c.partition(SIGN)[2].lower())}(?!\w)", text.lower())) for c in columns
        ]
        return values[:, named].mean(axis=1) if any(named) else np.zeros(len(table))

    return rank


def measure(
    queries: Sequence[Mapping[str, Any]], ranks: Mapping[str, Rank], truth: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """nDCG@10 of each query with each ranking; ties count as their expectation."""
    from sklearn.metrics import ndcg_score

    rows = []
    for query in queries:
        gain = find_gain(query, truth)
        if gain is not None:
            figures = {name: ndcg_score([gain], [rank(query["text"])], k=K) for name, rank in ranks.items()}
            rows.append({"kind": query["kind"], "text": query["text"], **figures})
    return pd.DataFrame(rows)


def list_files(folders: Sequence[Path]) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, nargs="+", required=True)
    parser.add_argument("--store", type=Path, required=True, help="where features are kept")
    parser.add_argument("--weights-dir", type=Path, default=DEFAULT_WEIGHTS_DIR)
    parser.add_argument("--each", action="store_true", help="print every query")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    queries = yaml.safe_load(QUERIES.read_text(encoding="utf-8"))
    table = describe_tracks(list_files(args.media), args.store, args.weights_dir)
    encoder = SentenceEncoder(args.weights_dir)
    single = table[[column for column in table.columns if not column.startswith(MTT)]]
    ranks = {
        "words": rank_by_words(table, encoder),
        "words, one network": rank_by_words(single, encoder),
        "equal tags, all": rank_by_equal_tags(table, None),
        "equal tags, three": rank_by_equal_tags(table, 3),
        "random": lambda text: np.zeros(len(table)),
    }
    print(f"{len(table)} tracks, {len(queries)} queries")
    results = {}
    for name, networks in {"both networks": (MSD, MTT), MSD: (MSD,), MTT: (MTT,)}.items():
        figures = measure(queries, ranks, find_truth(table, networks))
        means = figures.groupby("kind", sort=False)[[*ranks]].mean()
        means.insert(0, "queries", figures.groupby("kind", sort=False).size())
        means.loc["all"] = [len(figures), *figures[[*ranks]].mean()]
        print(f"\nTruth of {name}\n{means.round(3).to_string()}")
        if args.each:
            print(figures.round(2).to_string(index=False))
        results[name] = figures.to_dict("records")
    if args.json:
        args.json.write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
