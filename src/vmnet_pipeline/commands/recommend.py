"""`kedro recommend`: search the index of a collection and print a table or JSON."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmnet_pipeline.commands.collection import choose_collection, tell_network
from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import ProjectCommand
from vmnet_pipeline.commands.queries import Searcher, expand_folders
from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.hooks.program import say_next
from vmnet_pipeline.types import SIDES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.search.recommendation import Ranking, Recommendation
    from vmnet_pipeline.search.words import WordQuery
    from vmnet_pipeline.types import CollectionPlaces, Side

WIDTHS = {"id": 28, "title": 28, "group": 16, "licence": 12, "tags": 36}


@click.command(
    name="recommend", cls=ProjectCommand, short_help="Find music for a video, or videos for music, or either by words."
)
@click.argument("videos", nargs=-1, metavar="[VIDEO]...", type=click.Path(path_type=Path))
@click.option(
    "--music",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Recommend videos for this music instead; repeatable.",
)
@click.option("--video", "more_videos", multiple=True, type=click.Path(path_type=Path), help="The same as VIDEO.")
@click.option(
    "--text",
    default=None,
    help="Words for what is wanted, alone or with a file: 'calm piano, no drums'. English.",
)
@click.option(
    "--text-weight",
    type=click.FloatRange(0.0, 1.0),
    default=0.5,
    show_default=True,
    help="With a file and --text: share of the words in the score.",
)
@click.option(
    "--target",
    type=click.Choice(SIDES),
    default=None,
    help="With --text alone: what to look for.  [default: music]",
)
@click.option("--same-side", is_flag=True, help="More like this: videos like VIDEO, or music like the music.")
@click.option("--top-k", type=click.IntRange(1), default=10, show_default=True, help="Number of results.")
@click.option(
    "--rerank",
    type=click.FloatRange(0.0, 1.0),
    default=None,
    help="Re-rank the 50 best piece by piece: share of the agreement over time in the score.  [default: off]",
)
@click.option(
    "--variety",
    type=click.FloatRange(0.0, 1.0),
    default=0.0,
    help="Choose results of the 50 best that differ from each other: share of unlikeness.  [default: off]",
)
@click.option("--one-per-group", is_flag=True, help="Only the best item of each group, such as a song.")
@click.option("--filter", "filters", multiple=True, help="Only items like this: group=A, tag=rock, 'duration<60'.")
@click.option("--exclude", multiple=True, metavar="ID", help="Leave this item out, e.g. the query itself; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@choose_collection
@report_errors()
def recommend_items(
    videos: tuple[Path, ...],
    more_videos: tuple[Path, ...],
    music: tuple[Path, ...],
    text: str | None,
    target: Side | None,
    same_side: bool,
    as_json: bool,
    places: CollectionPlaces,
    **options: Any,
) -> None:
    """Recommend music of a collection for VIDEO, best first; with --music FILE, videos for that music.

    With --text the words count too, or alone. VIDEO and FILE are local files, folders of files, or ids of items of the
    collection. Embed and index the collection first: kedro run --pipelines=embed,index
    """
    paths = choose_files((*videos, *more_videos), music, text)
    if options["rerank"] is not None and text is not None:
        raise click.UsageError("--rerank cannot be combined with --text")
    if not paths and same_side:
        raise click.UsageError("--same-side needs a file")
    if paths and target:
        raise click.UsageError("--target is for --text alone; with a file, use VIDEO or --music, and --same-side")
    from vmnet_pipeline.search.recommendation import target_side

    if paths:
        tell_network(places)
    query: Side = "music" if music else "video"
    side = target_side(query, same_side=same_side) if paths else target or "music"
    weight = options.pop("text_weight")
    words = None if text is None else understand_words(text, side, places, weight)
    asked = {"text": text, "direction": f"{query if paths else 'text'}_to_{side}"}
    if not paths:
        ranking = rank_by_words(side, places, words, **options)
        click.echo(format_json({"query": None, **asked}, ranking) if as_json else format_table(ranking))
        return
    options |= {"same_side": same_side, "words": words}
    if len(paths) == 1 and not paths[0].is_dir():
        ranking = make_ranking(paths[0], query, places, **options)
        click.echo(format_json({"query": str(paths[0]), **asked}, ranking) if as_json else format_table(ranking))
    else:
        show_all(expand_folders(paths), query, places, asked, as_json=as_json, **options)
    if not as_json:
        say_next("kedro serve with the same options, to see and hear them; kedro render VIDEO MUSIC, to keep one")


def choose_files(videos: Sequence[Path], music: Sequence[Path], text: str | None) -> Sequence[Path]:
    """The files of a query, all of one side; none where there are only words.

    Raises:
        click.UsageError: There are neither, or files of both sides.
    """
    if (videos and music) or not (videos or music or text is not None):
        raise click.UsageError("give either VIDEOs or --music FILE, or --text WORDS alone or with one of them")
    return videos or music


def show_all(
    paths: Sequence[Path],
    query: Side,
    places: CollectionPlaces,
    asked: Mapping[str, str | None],
    *,
    as_json: bool,
    same_side: bool,
    **options: Any,
) -> None:
    """Print the answers for several files, for which index and network are read once; one bad file costs no other.

    Raises:
        click.exceptions.Exit: With 1, after all, if a file could not be used.
    """
    searcher, answers, n_failed = Searcher(places, query, same_side=same_side), [], 0
    for path in paths:
        try:
            ranking = searcher.rank(path, **options)
        except (MediaError, ParameterError) as error:
            click.echo(f"{path}: {error}", err=True)
            n_failed += 1
            continue
        answers.append(format_json({"query": str(path), **asked}, ranking))
        if not as_json:
            click.echo(f"{path}\n{format_table(ranking)}\n")
    if as_json:
        click.echo("[" + ",\n".join(answers) + "]")
    if n_failed:
        click.echo(f"{n_failed} of {len(paths)} files cannot be used.", err=True)
        raise click.exceptions.Exit(1)


def understand_words(text: str, side: Side, places: CollectionPlaces, weight: float) -> WordQuery:
    """Read a text about the items of one side: in the network's own space of texts if it has one, else by tags.

    Raises:
        VmnetError: Words can ask for nothing there, the sentence encoder is missing, or the text is not understood.
    """
    from vmnet_pipeline.inference.text_space import embed_texts
    from vmnet_pipeline.search.index_files import load_index
    from vmnet_pipeline.search.words import ask_by_qualities, ask_in_space
    from vmnet_pipeline.words.asking import read_clauses
    from vmnet_pipeline.words.qualities import read_qualities
    from vmnet_pipeline.words.sentences import SentenceEncoder
    from vmnet_pipeline.words.understanding import Listener

    clauses = read_clauses(text)  # what cannot be read needs no weights
    if embedder := open_text_space(side, places):
        index = load_index(places.output / f"{side}_index")
        places_of = index.select().nonzero()[0].tolist()
        texts = embed_texts(embedder, side, [clause.text for clause in clauses])
        return ask_in_space(clauses, texts, index.ids, index.take_vectors(places_of), weight)
    qualities = read_qualities(places.output, side)
    listener = Listener(qualities.columns, SentenceEncoder(places.weights_dir))
    return ask_by_qualities(listener.understand(text), qualities, weight)


def open_text_space(side: Side, places: CollectionPlaces) -> Embedder | None:
    """The network of an index, if it embeds texts, too; None for others and without a checkpoint.

    Raises:
        VmnetError: The checkpoint, or the model that embeds texts, cannot be used.
    """
    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.inference.text_space import embeds_texts, projects_texts

    if not projects_texts(places.checkpoint, side):
        return None
    embedder = Embedder.load(places.checkpoint, weights_dir=places.weights_dir)
    return embedder if embeds_texts(embedder, side) else None


def rank_by_words(
    side: Side, places: CollectionPlaces, words: WordQuery | None, *, rerank: None = None, **options: Any
) -> Ranking:
    """Rank the items of one side of a collection by words alone; no network is loaded.

    Raises:
        VmnetError: The index is missing or cannot be used.
    """
    from vmnet_pipeline.search.index_files import load_index
    from vmnet_pipeline.search.recommendation import rank_items

    return rank_items(load_index(places.output / f"{side}_index"), None, words=words, **options)


def make_ranking(path: Path, query: Side, places: CollectionPlaces, *, same_side: bool, **options: Any) -> Ranking:
    """Rank the items of a collection for one side of a file, see `queries.Searcher.rank`.

    Raises:
        VmnetError: A file, the checkpoint or the index is missing or cannot be used.
    """
    return Searcher(places, query, same_side=same_side).rank(path, **options)


def format_json(asked: Mapping[str, str | None], ranking: Ranking) -> str:
    """Format results for programs: what was asked, `remark`, `in_domain`, and `results`: rank, id, score, ..."""
    content: dict[str, Any] = {**asked, "remark": ranking.remark, "in_domain": ranking.in_domain}
    content["results"] = [asdict(item) for item in ranking]
    return json.dumps(content, ensure_ascii=False, indent=2)


def format_table(ranking: Ranking) -> str:
    """Format results for people: one line each, without empty columns, and the remark on them."""
    if not ranking:
        return "No item matches the filters."
    rows = [_list_cells(item) for item in ranking]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    table = [columns, *([row[name] for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in table) for place in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return "\n".join([*lines, *textwrap.wrap(ranking.remark, 100)])


def _list_cells(item: Recommendation) -> dict[str, str]:
    """Column to text; empty for what is not known."""
    cells, seconds = {"id": item.id, **item.metadata}, item.metadata.get("duration_s")
    return {
        "rank": str(item.rank),
        "score": f"{item.score:.3f}",
        "fit": "" if item.fit is None else f"{100 * item.fit:.1f} %",
        "above": "" if item.percentile is None else f"{item.percentile:.1f} %",
        **{name: _cut(cells.get(name), width) for name, width in WIDTHS.items()},
        "duration": f"{int(seconds) // 60}:{int(seconds) % 60:02d}" if seconds else "",
        "reasons": item.reasons,
    }


def _cut(value: Any, width: int) -> str:
    text = str(value or "")
    return text if len(text) <= width else f"{text[: width - 3]}..."
