"""The manual's tables of settings, from the schema: `python -m trainer.config.reference` writes resources/settings.md."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.config.fields import Section, bounds_of, item_section, plain_type, settings_of
from trainer.config.run import RunFile, sections
from trainer.files import write_text
from trainer.paths import RESOURCES

TARGET = RESOURCES / "settings.md"
_BOUND_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than", "multiple_of": "multiple of"}


def settings_page() -> str:
    """The whole page as Markdown."""
    lines = [
        "# Settings of a run file",
        "",
        "Made from the schema by `python -m trainer.config.reference`; a test says when it is out of date.",
        "Settings marked * stand under “More settings” in the window.",
    ]
    for key, section in sections().items():
        lines += ["", f"## [{key}] {RunFile.model_fields[key].title}", "", (section.__doc__ or "").strip(), ""]
        lines += _table(section)
        for name, field, _ in settings_of(section):
            item = item_section(field)
            if item is not None:
                lines += ["", f"### [[{key}.{name}]]", "", (item.__doc__ or "").strip(), ""]
                lines += _table(item)
    return "\n".join(lines) + "\n"


def _table(section: type[Section]) -> Iterator[str]:
    yield "| setting | default | values | what it does |"
    yield "|---|---|---|---|"
    for key, field, info in settings_of(section):
        if item_section(field) is not None:
            default = "a list"
        else:
            value = field.get_default(call_default_factory=True)
            default = "empty" if value in (None, "", {}) else f"`{value}`"
        limits = ", ".join(f"{_BOUND_WORDS[name]} {limit:g}" for name, limit in bounds_of(field).items())
        choices = ", ".join(f"`{choice.value}`" for choice in info.choices)
        values = choices or " ".join(part for part in (plain_type(field).__name__, limits, info.unit) if part)
        star = " *" if info.level == "advanced" else ""
        costs = f" {info.costs}" if info.costs else ""
        text = f"**{info.label}.** {info.help}{costs}"
        kohya = f" (kohya: {', '.join(f'`{name}`' for name in info.kohya)})" if info.kohya else ""
        yield f"| `{key}`{star} | {default} | {values} | {text}{kohya} |"


if __name__ == "__main__":
    write_text(TARGET, settings_page())
