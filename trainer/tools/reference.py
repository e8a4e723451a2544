"""The manual's page of the tools' options, from their descriptions: `python -m trainer.tools.reference` writes it."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.config.fields import item_section, plain_type, settings_of
from trainer.config.options import option_name
from trainer.files import write_text
from trainer.paths import RESOURCES
from trainer.tools.catalog import TOOLS, Tool
from trainer.tools.commands import list_option, value_name

TARGET = RESOURCES / "tools.md"


def tools_page() -> str:
    """The whole page as Markdown."""
    lines = [
        "# Options of the tools",
        "",
        "Made from the tools' descriptions by `python -m trainer.tools.reference`; a test says when it is out of date.",
        "What comes out of each is told in [docs/tools.md](../docs/tools.md). Every tool also takes `--json` (one event a",
        "line, for programs) and `--stop-file FILE` (stops as soon as that file exists).",
    ]
    for tool in TOOLS.values():
        lines += ["", f"## {tool.name}", "", str(tool.summary), "", f"`python -m trainer tools {_usage(tool)}`", ""]
        lines += _table(tool)
    return "\n".join(lines) + "\n"


def _usage(tool: Tool) -> str:
    needed = [key for key in tool.needed if key not in tool.given]
    given = [key.upper() if key in tool.needed else f"[{key.upper()}]" for key in tool.given]
    return " ".join([tool.name, *given, *(_option(tool, key) for key in needed), "[options]"])


def _option(tool: Tool, key: str) -> str:
    """An option with its value, as the command line has it."""
    field, info = next((field, info) for name, field, info in settings_of(tool.settings) if name == key)
    kind, item = plain_type(field), item_section(field)
    if key in tool.given:
        return key.upper() + (" …" if kind is tuple else "")
    if item is not None:
        return f"{option_name(key.removesuffix('s'))} {list_option(item)}"
    if kind is bool:
        return option_name(key)
    if kind is tuple:
        return f"{option_name(key)} {key.upper()} …"
    return f"{option_name(key)} {value_name(kind, info)}"


def _table(tool: Tool) -> Iterator[str]:
    yield "| option | default | what it does |"
    yield "|---|---|---|"
    for key, field, info in settings_of(tool.settings):
        usual = field.get_default()
        default = "" if usual in ("", (), None, False) else f"`{usual}`"
        choices = "".join(f" `{choice.value}`: {choice.label}. {choice.help}".rstrip() for choice in info.choices)
        yield f"| `{_option(tool, key)}` | {default} | {info.help}{choices} |"


if __name__ == "__main__":
    write_text(TARGET, tools_page())
