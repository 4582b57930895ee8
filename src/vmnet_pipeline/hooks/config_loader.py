"""Read the configuration, keeping names and paths as text.

YAML turns `collection: 007` into the number 7, `2024_01` into 202401 and `on` into a truth value, and Kedro reads
values of `--params` as YAML. The original text is known only to the YAML parser, so it is kept there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader  # the rules by which OmegaConf distinguishes numbers from text

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.storage.project import PATH_NAMES
from vmnet_pipeline.storage.yaml_files import load_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from omegaconf import DictConfig

_COMMA = "\\u002c"
_TEXT, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
TEXT_PARAMETERS = PATH_NAMES | {
    "address",
    "against",
    "collection",
    "group_regex",
    "library_side",
    "music_tower",
    "variant",
    "video_tower",
}
"""Last parts of the names of parameters that are text; no other parameter has such a part."""


class ProjectConfigLoader(OmegaConfigLoader):
    """Kedro's loader with names and paths as text; `null` in a file still means none."""

    def __init__(self, conf_source: str, env: str | None = None, runtime_params: Any = None, **options: Any) -> None:
        self._groups: dict[str, set[str]] = {}  # folder to the groups of parameters in its files
        super().__init__(conf_source, env, None if runtime_params is None else write_out(runtime_params), **options)

    def _read_dir_configs(
        self, conf_path: str, patterns: Iterable[str], key: str, *others: Any, **options: Any
    ) -> dict[Path, DictConfig]:
        configs: dict[Path, DictConfig] = super()._read_dir_configs(conf_path, patterns, key, *others, **options)
        if key not in ("parameters", "globals"):
            return configs
        written = {path: load_as_written(self._fs.cat(path.as_posix()).decode()) or {} for path in configs}
        self._groups[conf_path] = {name for content in written.values() for name in content}
        return {path: OmegaConf.create(content) for path, content in written.items()}

    def _merge_configs(self, config: dict[str, Any], env_config: dict[str, Any], key: str, env_path: str) -> Any:
        """Merge what the files of an environment say.

        Kedro adds `--params` to them, so that `evaluate.pool_size=5` would take the place of all of `evaluate` in base.
        """
        if key == "parameters":
            env_config = {name: env_config[name] for name in env_config.keys() & self._groups.get(env_path, set())}
        return super()._merge_configs(config, env_config, key, env_path)


def load_as_written(text: str) -> Any:
    """Content of a YAML file with names and paths as text."""

    class Loader(get_yaml_loader()):  # type: ignore[misc]
        def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
            node: yaml.MappingNode = super().compose_mapping_node(anchor)
            for key, value in node.value:
                is_plain = isinstance(value, yaml.ScalarNode) and value.style is None and value.tag != _NULL
                if is_plain and isinstance(key, yaml.ScalarNode) and is_text(key.value):
                    value.tag = _TEXT
            return node

    return load_yaml(text, Loader)


def quote_names(params: str) -> str:
    """Quote names, paths and lists in `NAME=VALUE,...`, the value of `--params`, so that YAML and Kedro keep them.

    A part without `=` belongs to the path before it, which has a comma in its name. A list or mapping, `[1, 5]`, ends
    with its bracket. An empty value means none.

    Raises:
        ParameterError: A list or mapping is not closed.
    """
    parts: list[str] = []
    for part in params.split(","):
        if parts and (_is_open(parts[-1]) or ("=" not in part and part.strip() and is_text(_name_of(parts[-1])))):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return ",".join(map(_quote, parts))


def _name_of(part: str) -> str:
    return part.partition("=")[0]


def _is_open(part: str) -> bool:
    """Whether a list or mapping has begun and not ended."""
    name, _, value = part.partition("=")
    if is_text(name) or value.strip()[:1] not in ("[", "{"):
        return False
    return sum(value.count(sign) for sign in "[{") > sum(value.count(sign) for sign in "]}")


def _quote(part: str) -> str:
    name, equals, value = part.partition("=")
    value = value.strip()
    if not is_text(name) and value[:1] in ("[", "{"):
        return f"{name}={_quote_list(name, value)}"
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    is_none = name.strip() == "variant" and value == "null"  # the variant is then recognised from the shapes
    if not equals or not value or is_quoted or is_none or not is_text(name):
        return part
    text = json.dumps(value, ensure_ascii=False).replace(",", _COMMA)  # Kedro splits at commas
    return f"{name}={text}"


def _quote_list(name: str, value: str) -> str:
    """A list or mapping as a YAML block, which has no commas."""
    try:
        content = load_as_written(value)
    except yaml.YAMLError as error:
        raise ParameterError(f"--params {name.strip()}={value}: write lists as [a, b], mappings as {{a: 1}}") from error
    text = yaml.safe_dump(content, default_flow_style=False, default_style='"', allow_unicode=True, width=2**31)
    return "\n" + text.replace(",", _COMMA)


def is_text(name: str) -> bool:
    """Whether a parameter, e.g. `media_dir` or `extract.executor.address`, is a name or a path."""
    return name.strip().rpartition(".")[2] in TEXT_PARAMETERS


def write_out(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters in which numbers given for names or paths are text."""
    return {name: _write_value(str(name), value) for name, value in params.items()}


def _write_value(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return write_out(value)
    is_scalar = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_text(name) and is_scalar else value
