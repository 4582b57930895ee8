"""Write docs/errors.md from the exceptions, the reasons of failed items and the codes of the service.

`python docs/make_errors.py`. Classes and their causes come from the source; remedies, and the meaning of reasons and codes,
are here. A name missing here, or no longer in the source, is an error.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from pathlib import Path

from vmnet_pipeline import errors
from vmnet_pipeline.extraction.planning import RETRIED_REASONS

DOCS = Path(__file__).parent
TARGET = DOCS / "errors.md"
SOURCE = DOCS.parent / "src" / "vmnet_pipeline"

REMEDIES = {
    "ParameterError": "Correct the parameter that the message names; [parameters](parameters.md) has its kind, bounds and default.",
    "StorageError": "On a disk: free space, correct rights, or repair the disk, as the message says, and run again. In an object store: check the URL, the network and the credentials (`conf/local/credentials.yml`); install the package of the store. See [object stores](scaling.md).",
    "LimitError": "Raise the limit that the message names (`ulimit -v`, `-u`, `-n`, `-t`), or end other processes, and run again: what is finished is kept.",
    "SandboxError": "Allow the process to start others: more memory, or a higher limit on processes (`ulimit -u`).",
    "IngestError": "Give `media_dir` one of the three shapes of [your own media](own-media.md); correct the named row of media.csv; run `ingest` before other steps.",
    "MediaError": "Convert or replace the file, or leave it: it is one row with a reason (below), and the run continues.",
    "WeightsError": "`kedro weights fetch NAME`; offline, put the file where the message says. Delete a damaged one and fetch it again.",
    "FeatureStoreError": "Other settings: go back to the old ones, or use another `save_dir` or `collection`. Damage: `kedro features verify --repair`. Another run at work: wait for it.",
    "ExtractionError": "Look at the reasons in the message, correct the media or raise `extract.max_failed_share`. Ended workers: fewer of them (`extract.n_workers`).",
    "SplitError": "More groups, other shares, or csv files whose ids and groups do not contradict each other.",
    "PairsError": "Correct the named files or csv rows; extract features of both sides; pass the tower that fits the features.",
    "TrainingError": "More training or validation pairs, a smaller `train.batch_size` or learning rate, an available device; the message says which.",
    "TuningError": "Move the old study away, wait for the other search, or see the errors of the trials.",
    "CheckpointError": "Train first, use the features that the checkpoint was trained on, or copy the damaged checkpoint again.",
    "EmbedderError": "Give float arrays of the shape in the message; `array[None]` for one item, `pooled=True` for pooled ones. See [using a trained network](using.md).",
    "SearchIndexError": "`kedro run --pipelines=embed,index` rebuilds the index; write filters as `group=jazz`, `duration<60`.",
    "RefusedError": "An answer of the service, with one of the codes below.",
}

REASONS = {
    "decoder_crashed": (
        "it crashed the process that reads it",
        "convert it, or read it with another version of FFmpeg",
    ),
    "device_out_of_memory": (
        "one window or frame does not fit into the memory of the device",
        "a smaller model or another device; batches that do not fit are halved before",
    ),
    "duplicate": ("audio and video are byte for byte those of an earlier item", "none needed: it would count twice"),
    "empty_file": ("the file has no bytes", "copy or download it again"),
    "frame_too_large": ("its frames are larger than accepted", "scale it down"),
    "internal_error": ("a defect of the program or of a library", "run again; report it with the row's `error`"),
    "missing_file": ("it was removed after the manifest was made", "put it back, or run `ingest` again"),
    "no_audio_file": ("the item has no music file", "add one of the same name, or name the pair in media.csv"),
    "no_audio_stream": ("it has no audio", "give another file for the music"),
    "no_media_file": ("the row of a media.csv names neither audio nor video", "name a file, or remove the row"),
    "no_media_stream": ("neither audio nor video", "remove it"),
    "no_video_file": ("the item has no video file", "add one of the same name, or name the pair in media.csv"),
    "no_video_stream": ("no video; a cover picture does not count", "give another file for the video"),
    "not_a_file": ("a folder, a pipe or a device", "give the path of a file"),
    "not_finite": (
        "NaN or infinity in the feature, or out of the range of float16",
        "look at the file; `dtype: float32`",
    ),
    "out_of_memory": ("reading it took more than `limits.memory_mb`", "scale or convert it, or allow more"),
    "protected": (
        "its video is protected (DRM), or of a codec that FFmpeg does not know",
        "give a file without protection",
    ),
    "timed_out": ("reading it took longer than `limits.seconds`", "convert it, or allow more time"),
    "timeout": (
        "a worker finished no item for `extract.item_timeout_s`, twice",
        "convert the file, or allow more time",
    ),
    "too_short": ("music of less than 50 ms, or nothing in it that a feature can be made of", "give another file"),
    "uncopyable": ("its video cannot be copied to the format of the result", "write a .mkv file"),
    "unfit_format": ("the format of the result cannot hold its video", "write a .mkv or .mp4 file"),
    "too_many_streams": ("more streams than accepted", "keep one audio and one video stream"),
    "too_long": ("longer than accepted, in the service than `max_duration_s`", "cut the file"),
    "undecodable_audio": ("no decoder for its audio, or all of it is damaged", "convert it"),
    "undecodable_video": ("no decoder for its video, or all of it is damaged", "convert it"),
    "unknown_format": ("not a media format known to FFmpeg", "convert or remove it"),
    "unreadable": ("a failure of disk or network, or missing rights", "check them and run again"),
    "worker_died": ("it ended two worker processes", "convert the file; check memory"),
}

CODES = {
    "bad_embedding": ("422", "`embedding` has the wrong length, or is not finite"),
    "bad_features": ("422", "`features` are not those of one item of this network"),
    "bad_text": ("422", "`text` that says nothing, is too long, or is not understood"),
    "bad_filter": ("422", "an invalid filter, or an unknown column"),
    "bad_form": ("400", "a malformed multipart form"),
    "bad_range": ("416", "the requested range is not in the file; `Content-Range` has its length"),
    "bad_request": ("422", "JSON that does not match the OpenAPI document"),
    "busy": ("429", "all places are taken; `Retry-After` says when to try again"),
    "cannot_rerank": (
        "422",
        "`rerank` with an embedding or pooled features, or without the features of the collection",
    ),
    "no_reasons": ("422", "`reasons` with an embedding, or with words alone"),
    "no_words": ("422", "`text` where nothing is known of the items, or without the sentence encoder"),
    "closing": ("503", "the service is shutting down"),
    "failed": ("500", "an internal error; see the log of the service"),
    "foreign_page": ("403", "cross-origin request; see `allowed_origins`"),
    "http": ("4xx", "an unknown path, or a method or header that HTTP does not allow"),
    "loading": ("503", "the networks are loading"),
    "lost_worker": ("503", "the process working on the request was ended; `Retry-After` says when to try again"),
    "no_file": ("400", "an upload without a file"),
    "no_key": ("401", "the API key is missing or wrong"),
    "no_media": ("404", "the item's media are outside the media roots, or missing"),
    "no_networks": ("503", "the networks cannot be loaded; the log of the service says why"),
    "no_such_render": ("404", "a rendered video that is not there any more; render it again"),
    "not_rendered": ("404", "the video is not rendered yet, or could not be; see the state of the job"),
    "no_such_upload": ("404", "an upload that was kept is not there any more; send the file again"),
    "no_such_item": ("404", "no item with this id, or it has no media of this side"),
    "no_storage": ("503", "uploads cannot be stored at present"),
    "other_checkpoint": ("503", "index and network do not match; run `embed,index` to rebuild the index"),
    "overloaded": ("503", "more than `max_connections` connections"),
    "slow_body": ("408", "the body arrives more slowly than `min_body_kb_s`"),
    "storage_full": ("507", "the disk for uploads is full; `Retry-After` says when to try again"),
    "timeout": ("504", "processing took longer than `job_timeout_s` or `request_timeout_s`"),
    "too_large": ("413", "larger than `max_upload_mb` or `max_json_mb`"),
    "unknown_host": ("400", "the name in the header `Host` is not in `allowed_hosts`"),
    "wrong_type": ("422", "`Content-Type`, charset or compression of the body is not accepted"),
}

HEAD = """# Errors

Written by `python docs/make_errors.py`. Every error that is raised on purpose is a subclass of `vmnet_pipeline.errors.VmnetError`, and its
message names the item at fault and the remedy. A run that ends with one has exit code 1. Any other exception is a defect of the
program.

## Classes

| class | cause | remedy |
|---|---|---|
"""

REASON_HEAD = """
## Reasons of failed items

The column `reason` of the manifest and of a store's index has them; `kedro features status` and the report count them. The next run retries those with a
`*`, the others only when the file has changed.

| reason | cause | remedy |
|---|---|---|
"""

CODE_HEAD = """
## Codes of the service

The field `code` of an error's JSON has one of these, or a reason from above with status 422; see [the service](serving.md).

| code | status | when |
|---|---|---|
"""


def find_classes() -> dict[str, str]:
    """Every subclass of the root in the package, by name, with the first sentence of its docstring."""
    found = {}
    for path, tree in _parse_sources():
        for node in ast.walk(tree):
            bases = [base.id for base in getattr(node, "bases", []) if isinstance(base, ast.Name)]
            if isinstance(node, ast.ClassDef) and (set(bases) & {*found, "VmnetError"}):
                doc = ast.get_docstring(node)
                if not doc:
                    raise SystemExit(f"{path}: class {node.name} has no docstring")
                found[node.name] = " ".join(doc.split("\n\n")[0].split())
    return found


def find_reasons() -> set[str]:
    """Every slug that the source gives as the reason of a failed item."""
    found = set(RETRIED_REASONS)
    for path, tree in _parse_sources():
        if "serving" in path.parts:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                place = {"MediaError": 0, "_failed_row": 1, "SourceItem": 4}.get(_name_of(node.func))
                found |= _constants(node.args[place]) if place is not None and len(node.args) > place else set()
            elif isinstance(node, ast.Assign) and any(_is_reason(target) for target in node.targets):
                found |= _constants(node.value)
    return found


def find_codes() -> set[str]:
    """Error codes of the service, without the reasons of media files."""
    found = set()
    for path, tree in _parse_sources():
        if "serving" not in path.parts:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name_of(node.func) in ("RefusedError", "make_error_response"):
                found |= _constants(node.args[1])
            if isinstance(node, ast.Call) and _name_of(node.func) == "MediaError":
                found |= _constants(node.args[0])
    return found


@cache
def _parse_sources() -> list[tuple[Path, ast.Module]]:
    paths = sorted(SOURCE.rglob("*.py"), key=lambda path: (path.name != "errors.py", path))
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def _name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_reason(target: ast.expr) -> bool:
    """Whether something is assigned to `reason`, or to a column of that name."""
    if isinstance(target, ast.Subscript):
        return any(isinstance(part, ast.Constant) and part.value == "reason" for part in ast.walk(target.slice))
    return _name_of(target) == "reason"


def _constants(node: ast.expr) -> set[str]:
    """String constants that an expression may evaluate to."""
    if isinstance(node, ast.IfExp):
        return _constants(node.body) | _constants(node.orelse)
    return {node.value} - {""} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def check_complete() -> None:
    """End with a message where this file and the source differ."""
    pairs = {
        "classes": (set(find_classes()), set(REMEDIES)),
        "reasons": (find_reasons(), set(REASONS)),
        "codes": (find_codes(), set(CODES)),
    }
    for what, (found, told) in pairs.items():
        if found != told:
            raise SystemExit(
                f"{what}: add {sorted(found - told)} to docs/make_errors.py, remove {sorted(told - found)}"
            )


def make_page() -> str:
    """The whole page."""
    check_complete()
    root = inspect.getmodule(errors.VmnetError)
    classes = find_classes()
    order = [name for name in vars(root) if name in classes] + [name for name in classes if not hasattr(root, name)]
    rows = [f"| `{name}` | {classes[name]} | {REMEDIES[name]} |" for name in order]
    reasons = [
        f"| `{name}`{'*' if name in RETRIED_REASONS else ''} | {cause} | {remedy} |"
        for name, (cause, remedy) in sorted(REASONS.items())
    ]
    codes = [f"| `{name}` | {status} | {when} |" for name, (status, when) in sorted(CODES.items())]
    return "\n".join([HEAD + "\n".join(rows), REASON_HEAD + "\n".join(reasons), CODE_HEAD + "\n".join(codes), ""])


if __name__ == "__main__":
    TARGET.write_text(make_page(), encoding="utf-8")
