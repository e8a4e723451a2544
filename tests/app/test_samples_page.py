"""The Samples page: what is said of a prompt stands in its card."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtWidgets import QLabel

from app.main_window import MainWindow
from tests.app.conftest import Wait
from tests.families import save_kind


def test_a_sampler_that_does_not_suit_the_model_is_told_in_the_prompts_card(
    window: MainWindow, wait: Wait, tmp_path: Path
) -> None:
    """What needs the model's file reaches the card as what the run file's own rules say."""
    page, draft = window.page("samples"), window.draft
    window.open_page("samples")
    draft.set("samples.prompts", [{"prompt": "a cat"}, {"prompt": "a dog", "sampler": "dpmpp_2m_karras"}])
    draft.set("model.path", str(save_kind(tmp_path, "sd2 v zero")))

    def said() -> list[str]:
        return [made.text() for made in page.findChildren(QLabel) if "Euler a" in made.text()]

    wait(lambda: said())
    assert len(said()) == 1 and "zero terminal SNR DPM++ 2M Karras" in said()[0]
    assert draft.problems_at("samples.prompts[2].sampler") and not draft.problems_at("samples.prompts[1]")
    draft.set("samples.prompts[2].sampler", "ddim")
    wait(lambda: not said())
